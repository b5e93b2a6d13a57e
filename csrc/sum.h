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

template <class X>
struct Sum {
  static constexpr int kParts = sizeof(double) / sizeof(X);
  static constexpr double kHeadroom = sizeof(X) == 4 ? 0x1.8p10 : 0x1.8p11;  // room for the terms of a block
  V<X> start;
  Lanewise<X, Batch<X>> batches;
  Lanewise<X, V<X>> vectors;

  // largest: no term added will have a larger power.
  explicit CROSSENT_INLINE Sum(V<X> largest)
      : start(largest * broadcast(static_cast<X>(kHeadroom))), batches{Batch<X>{} + start}, vectors{start} {}

  CROSSENT_INLINE void add(ExpTerm<Batch<X>> term) { batches.add(term); }
  CROSSENT_INLINE void add(ExpTerm<V<X>> term) { vectors.add(term); }

  CROSSENT_INLINE V<X> held() const { return fold<X>(batches.held - start) + (vectors.held - start); }
  CROSSENT_INLINE V<X> lost() const { return fold<X>(batches.lost) + vectors.lost; }
  // Part i of the lanes, held and lost; of floats there are two.
  CROSSENT_INLINE V<double> part(int i) const { return to_wide(held(), i) + to_wide(lost(), i); }
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

template <class X>
CROSSENT_INLINE Total total_of(const Sum<X>& lanes) {
  if constexpr (sizeof(X) == 4) return {sum_of_lanes<double>(lanes.part(0) + lanes.part(1)), 0};
  return {wide_sum(lanes.held()), wide_sum(lanes.lost())};
}

// The losses of rows in order, eight by eight whatever the groups they come in.
class LossSum {
 public:
  void add(const double* losses, int count) {
    for (int i = 0; i < count;) {
      if (filled_ == 0 && count - i >= kRun) {
        add_run(losses + i);
        i += kRun;
      } else {
        pending_[filled_++] = losses[i++];
        if (filled_ == kRun) add_run(pending_);
      }
    }
  }
  double value() {
    while (filled_ != 0) add(&kZero, 1);
    return total_.value();
  }

 private:
  static constexpr int kRun = 8;
  static constexpr double kZero = 0;

  void add_run(const double* losses) {
    V<double> sum{};
    for (int i = 0; i < kRun; i += kLanes<double>) sum += load(losses + i);
    total_.add(wide_sum(sum));
    filled_ = 0;
  }

  alignas(64) double pending_[kRun];
  int filled_ = 0;
  Total total_;
};

}  // namespace
}  // namespace crossent
