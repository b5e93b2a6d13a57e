// Sums of exponentials that lose nothing worth a digit: each term's own rounding error is added too.
#pragma once

#include "exp.h"

namespace crossent {
namespace {

// a + b and what rounding took from it (Knuth).
CROSSENT_INLINE V<double> two_sum(V<double> a, V<double> b, V<double>& lost) {
  const V<double> sum = a + b;
  const V<double> back = sum - a;
  lost += (a - (sum - back)) + (b - back);
  return sum;
}

// Lane by lane: floats in doubles, doubles with a second double for what they lose.
template <class X>
struct Sum;

template <>
struct Sum<float> {
  static constexpr int kParts = 2;
  V<double> low{}, high{};
  V<float> lost{};

  CROSSENT_INLINE void add(const ExpTerm<float>& term) {
    low += widen(term.value, 0);
    high += widen(term.value, 1);
    lost += term.lost;
  }
  CROSSENT_INLINE void add(const Sum& other) {
    low += other.low;
    high += other.high;
    lost += other.lost;
  }
  // Part 0 or 1 of the lanes.
  CROSSENT_INLINE V<double> part(int i) const { return (i ? high : low) + widen(lost, i); }
};

template <>
struct Sum<double> {
  static constexpr int kParts = 1;
  V<double> sum{}, lost{};

  CROSSENT_INLINE void add(const ExpTerm<double>& term) {
    sum = two_sum(sum, term.value, lost);
    lost += term.lost;
  }
  CROSSENT_INLINE void add(const Sum& other) {
    sum = two_sum(sum, other.sum, lost);
    lost += other.lost;
  }
  CROSSENT_INLINE V<double> part(int) const { return sum + lost; }
};

// One number and what rounding took from it.
struct Total {
  double sum = 0, lost = 0;

  CROSSENT_INLINE void add(double value) {
    const double next = sum + value;
    const double back = next - sum;
    lost += (sum - (next - back)) + (value - back);
    sum = next;
  }
  CROSSENT_INLINE void add(const Total& other, double factor) {
    add(other.sum * factor);
    lost += other.lost * factor;
  }
  // Of an infinite sum nothing is lost (and inf - inf is nan).
  CROSSENT_INLINE double value() const { return lost == lost ? sum + lost : sum; }
};

// The sum of plain numbers, lane by lane and then in all.
struct Lanes {
  V<double> sum{}, lost{};

  CROSSENT_INLINE void add(V<double> value) { sum = two_sum(sum, value, lost); }
  CROSSENT_INLINE Total total() const {
    Total total;
    for (int i = 0; i < kLanes<double>; ++i) total.add(sum[i]);
    total.lost += sum_of_lanes<double>(lost);
    return total;
  }
};

CROSSENT_INLINE Total total_of(const Sum<float>& lanes) {
  return {sum_of_lanes<double>(lanes.part(0) + lanes.part(1)), 0};
}

CROSSENT_INLINE Total total_of(const Sum<double>& lanes) {
  Total total;
  for (int i = 0; i < kLanes<double>; ++i) total.add(lanes.sum[i]);
  total.lost += sum_of_lanes<double>(lanes.lost);
  return total;
}

}  // namespace
}  // namespace crossent
