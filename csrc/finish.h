// From a row's sums to its loss and to the factors of its gradient: W rows at once, in double.
//   core = lse - u_anchor = log(1 + sum_others / exp(u_anchor)), exact however small
//   nll  = W core - linear,  loss = nll + z_loss lse^2,  W = target_mass + mass
#pragma once

#include "row.h"

namespace crossent {
namespace {

// Class logits X are summed as X, so the largest one's rounding error would reach every probability of its row: this is
// that error, to be added to the sum. Zero for double, whose exponential is not more exact elsewhere.
template <class X>
void largest_term_errors(const RowGroup& group, double (&error)[kGroup]) {
  for (double& e : error) e = 0;
  if constexpr (sizeof(X) == 4) {
    for (int i = 0; i < kGroup; i += kLanes<float>) {
      const auto floats = [i](const double* from) { return narrow(load(from + i), load(from + i + kLanes<double>)); };
      const ExpConstants<float> rough_constants(floats(group.offset), floats(group.exponent));
      const V<float> rough = exp_biased<float, true>(floats(group.row_max), rough_constants);
      for (int half = 0; half < 2; ++half) {
        const int at = i + half * kLanes<double>;
        const ExpConstants<double> constants(load(group.offset + at), load(group.exponent + at));
        const V<double> exact = exp_biased<double, true>(load(group.row_max + at), constants);
        const V<double> difference = exact * ExpTable<double>::kUnbias - widen(rough, half) * ExpTable<float>::kUnbias;
        store(error + at, load(group.row_max + at) != load(group.anchor_logit + at) ? difference : V<double>{});
      }
    }
  }
}

// kMass: targets have mass beside the one-hot part (smoothing, distributions). kLse: the loss needs lse.
template <class X, bool kMass, bool kLse>
void finish_rows(const Problem& problem, RowGroup& group) {
  alignas(64) double error[kGroup];
  largest_term_errors<X>(group, error);
  for (int i = 0; i < group.rows; i += kLanes<double>) {
    const V<double> none{};
    const V<double> offset = load(group.offset + i), exponent = load(group.exponent + i);
    const V<double> anchor = load(group.anchor_logit + i);
    const V<double> others = load(group.sum_others + i) + load(error + i);
    const V<double> shifted = anchor - offset;
    const V<double> own =
        exp_biased<double, true, kMass>(anchor, ExpConstants<double>(offset, exponent), load(group.anchor_tail + i)) *
        ExpTable<double>::kUnbias;
    const V<double> reference = fma<double>(exponent, broadcast(ExpTable<double>::kLn2), offset);
    const auto near = shifted - exponent * ExpTable<double>::kLn2 > -600.0;
    const V<double> all = near ? others + own : others;
    // Near its row's maximum the anchor's exponential is a normal number, and the loss a log1p.
    const OnePlus odds = one_plus(others / own);
    const V<double> log_odds = log_of(near ? odds.sum : all, near ? odds.tail : none);
    const V<double> core = near ? log_odds : (reference - anchor) + log_odds;
    const V<double> lse = kLse ? reference + log_of(all, none) : none;
    const V<double> onehot = load(group.target_mass + i);
    const V<double> mass = kMass ? load(group.mass + i) : none;
    const V<double> linear = kMass ? load(group.linear + i) : none;
    const V<double> total = onehot + mass;
    const auto finite = anchor > -kInfinity<double>;
    const V<double> beside = kMass ? mass * lse - linear : none;  // what the other classes add when the anchor is -inf
    const V<double> nll = finite ? total * core - linear : (onehot != 0.0 ? core : none) + beside;
    const auto valid = (all < kInfinity<double>)&(anchor == anchor);  // false for nan
    const V<double> nan = broadcast(kNan<double>);
    store(group.core + i, valid ? core : nan);
    store(group.sum_all + i, valid ? all : nan);
    store(group.loss + i, valid ? fma<double>(broadcast(problem.z_loss), lse * lse, nll) : nan);
    store(group.lse + i, valid ? lse : nan);
    if (!problem.grad) continue;
    const V<double> grad_loss = load(group.grad_loss + i);
    const V<double> z = broadcast(2 * problem.z_loss) * lse;
    const V<double> share = (total + z) / all;
    store(group.factor + i, valid ? grad_loss * share : nan);
    const V<double> rest = kMass ? mass - load(group.anchor_mass + i) : none;
    const V<double> positive = near ? share * others : total + z;
    store(group.grad_anchor + i, valid ? grad_loss * (rest + z - positive) : nan);
  }
}

// kGeneral: rows of general.h, with tails and masses.
template <class X, bool kGeneral>
void finish_group(const Problem& problem, RowGroup& group) {
  if (kGeneral) return finish_rows<X, true, true>(problem, group);
  if (problem.z_loss != 0) return finish_rows<X, false, true>(problem, group);
  finish_rows<X, false, false>(problem, group);
}

}  // namespace
}  // namespace crossent
