// One row between the passes: what its classes add up to, and what its gradient needs.
#pragma once

#include "core/crossent.h"
#include "log.h"
#include "stage.h"
#include "sum.h"

namespace crossent {
namespace {

// Sums over the classes seen so far, relative to `reference`; the anchor (the target's class, or the largest) is left
// out of others, so that no digit of a small loss is lost.
template <class X>
struct Sums {
  Reference<X> reference;
  bool empty = true;
  Total others;  // sum of exp
  double row_max = -kInfinity<double>;
  int64_t anchor = -1;
  double anchor_logit = -kInfinity<double>;
  double anchor_tail = 0;  // what rounding took from it
  double anchor_mass = 0;
  Total linear;            // sum of mass * (u - base()), over all classes
  Total mass;              // sum of mass
  double entropy_sum = 0;  // sum of exp(u) * (u - base())
  double product = 0;      // sum of exp(u) * du/da * v

  double base() const { return anchor_logit > -kInfinity<double> ? anchor_logit : 0; }

  // Measures everything against `next`.
  void refer_to(const Reference<X>& next) {
    if (!empty && !(reference == next)) {
      const double factor = ratio(reference, next);
      others.sum *= factor;
      others.lost *= factor;
      entropy_sum *= factor;
      product *= factor;
    }
    reference = next;
    empty = false;
  }

  CROSSENT_INLINE void add(double value) { others.add(value); }
  CROSSENT_INLINE void add(const Total& total, double factor) { others.add(total, factor); }

  // The factor that brings a sum measured against `other` to the reference, which first grows to `other` if that is
  // the larger.
  double join(const Reference<X>& other) {
    if (empty || reference == other || other.nats() > reference.nats()) {
      refer_to(other);
      return 1;
    }
    return ratio(other, reference);
  }
};

inline bool has_mass(const Problem& problem) {
  return problem.form == Targets::distribution || problem.options.label_smoothing != 0;
}

// What label smoothing gives to every class, before its weight.
inline double even_mass(const Problem& problem) {
  return problem.options.label_smoothing / static_cast<double>(problem.classes);
}

// Up to kGroup rows side by side: the sums in, the loss and the factors of the gradient out. All in double.
constexpr int kGroup = 32;
struct RowGroup {
  int rows = 0;
  bool even = true;      // the rows are one step apart in every array
  bool indexed = false;  // targets are indices: a row without one is ignored
  char* logits[kGroup];
  char* targets[kGroup];
  char* vector[kGroup];
  char* grad[kGroup];
  int64_t target[kGroup];                            // -1: the row is ignored or has no index target
  double target_logit[kGroup], target_tail[kGroup];  // scores only
  alignas(64) double grad_loss[kGroup];
  double target_mass[kGroup];  // one-hot part: (1 - label_smoothing) weight[target]
  // Sums
  double sum_others[kGroup], offset[kGroup], exponent[kGroup], row_max[kGroup], anchor_logit[kGroup];
  double anchor_tail[kGroup], mass[kGroup], anchor_mass[kGroup], linear[kGroup], entropy_sum[kGroup], product[kGroup];
  // exact_terms's
  alignas(64) double own[kGroup];
  double sum_error[kGroup];
  // finish_group's
  double loss[kGroup], core[kGroup], lse[kGroup], sum_all[kGroup];
  double factor[kGroup];       // dl/du_k = grad_loss (p_k (W + Z) - mass_k): what multiplies exp(u_k)
  double grad_anchor[kGroup];  // dl/du of the anchor, without grad_loss

  bool ignored(int row) const { return indexed && target[row] < 0; }

  template <class X>
  void take(int row, const Sums<X>& sums) {
    sum_others[row] = sums.others.sum + sums.others.lost;
    offset[row] = static_cast<double>(sums.reference.offset);
    exponent[row] = static_cast<double>(sums.reference.exponent);
    row_max[row] = sums.row_max;
    anchor_logit[row] = sums.anchor_logit;
    anchor_tail[row] = sums.anchor_tail;
    entropy_sum[row] = sums.entropy_sum;
    product[row] = sums.product;
  }
};

// Adds the sums of a row's next segment to those of its first ones.
template <class X>
void merge(const Sums<X>& next, Sums<X>& sums) {
  sums.linear.add(next.linear, 1);
  sums.mass.add(next.mass, 1);
  sums.row_max = next.row_max > sums.row_max ? next.row_max : sums.row_max;
  const double factor = next.empty ? 1 : sums.join(next.reference);
  sums.add(next.others, factor);
  sums.entropy_sum += next.entropy_sum * factor;
  sums.product += next.product * factor;
}

}  // namespace
}  // namespace crossent
