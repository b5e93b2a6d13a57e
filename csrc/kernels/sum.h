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

// Lane by lane. `held` starts so far above all terms that each addition rounds at one and the same place: what it holds
// is an exact sum of terms cut there. What was cut off, with each term's own rounding error, is added up in `lost`.
template <class X, class Vec>
struct Lanewise {
  Vec held, lost{};

  CROSSENT_INLINE void add(ExpTerm<Vec> term) {
    const Vec next = held + term.value;
    lost = lost + fma<X>(term.minus_one, term.power, term.power - (next - held));
    held = next;
  }
};

// Sums lane by lane: of a vector, or of a pair of them.
template <class X, class Vec>
struct Sum {
  static constexpr double kHeadroom = sizeof(X) == 4 ? 0x1.8p10 : 0x1.8p11;  // room for the terms of a block
  Vec start;
  Lanewise<X, Vec> lanes;

  // largest: no term added will have a larger power.
  explicit CROSSENT_INLINE Sum(Vec largest) : start(largest * broadcast(static_cast<X>(kHeadroom))), lanes{start} {}

  CROSSENT_INLINE void add(ExpTerm<Vec> term) { lanes.add(term); }
  CROSSENT_INLINE Vec held() const { return lanes.held - start; }
  CROSSENT_INLINE Vec lost() const { return lanes.lost; }
};

// Held and lost together, as part i of the lanes in double; of floats there are two.
template <class X>
CROSSENT_INLINE V<double> joined(V<X> held, V<X> lost, int i) {
  return to_wide(held, i) + to_wide(lost, i);
}

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

// The sum of all lanes.
template <class X>
CROSSENT_INLINE Total total_of(V<X> held, V<X> lost) {
  if constexpr (sizeof(X) == 4) return {sum_of_lanes<double>(joined<X>(held, lost, 0) + joined<X>(held, lost, 1)), 0};
  return {wide_sum(held), wide_sum(lost)};
}

// The losses of rows in order: eight sums in turn, whatever the groups they come in and the vectors they are added by.
class LossSum {
 public:
  void add(const double* losses, int count) {
    int i = 0;
    for (; filled_ == 0 && i + kSums <= count; i += kSums) add_run(losses + i);
    for (; i < count; ++i) {
      pending_[filled_++] = losses[i];
      if (filled_ < kSums) continue;
      add_run(pending_);
      filled_ = 0;
    }
  }
  double value() {
    while (filled_ != 0) add(&kZero, 1);
    Total total;
    for (const Lanes& lanes : sums_) total.add(lanes.total(), 1);
    return total.value();
  }

 private:
  static constexpr int kSums = 8;
  static constexpr double kZero = 0;

  void add_run(const double* losses) {
    for (int i = 0; i < kSums; i += kLanes<double>) sums_[i / kLanes<double>].add(load(losses + i));
  }

  Lanes sums_[kSums / kLanes<double>];
  double pending_[kSums];
  int filled_ = 0;
};

}  // namespace
}  // namespace crossent
