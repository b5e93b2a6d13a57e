// From a row's sums to its loss and to the factors of its gradient: W rows at once, in double.
//   core = lse - u_anchor = log(1 + sum_others / exp(u_anchor)), exact however small
//   nll  = W core - linear,  W = target_mass + mass,  loss = nll + z_loss lse^2,  Z = 2 z_loss lse
// The anchor of plain rows is their target, and linear is 0; that of general rows is their largest class, so that core
// and -linear are both sums of what is not negative.
#pragma once

#include "row.h"

namespace crossent {
namespace {

// Two exponentials of every row, more exact than the terms of its sum: `own`, exp of the anchor relative to the row's
// reference, and in `sum_error` what the sum lacks because its largest term was rounded. That error would reach every
// probability of a row summed in float; its pieces, added in double, are exact to 2^-27. Rows [first, first + W).
inline void exact_terms(V<float> anchor, V<float> row_max, const ExpConstants<float>& constants, RowGroup& group,
                        int first) {
  const auto pieces_of = [&](V<float> logit) {
    return exp_pieces<float, false>(max<float>(constants.lowest, logit - constants.offset), V<float>{},
                                    constants.round);
  };
  const ExpPieces<V<float>> own = pieces_of(anchor), largest = pieces_of(row_max);
  // Rows whose anchor is the largest have no such term.
  const V<float> power = anchor != row_max ? largest.power : V<float>{};
  const V<float> minus_one = largest.head + largest.rest;
  for (int half = 0; half < 2; ++half) {
    const int at = first + half * kLanes<double>;
    const V<double> own_power = widen(own.power, half) * ExpTable<float>::kUnbias;
    store(group.own + at, own_power + own_power * (widen(own.head, half) + widen(own.rest, half)));
    const V<double> lost = (widen(largest.head, half) + widen(largest.rest, half)) - widen(minus_one, half);
    store(group.sum_error + at, widen(power, half) * ExpTable<float>::kUnbias * lost);
  }
}

// Sums in double have no more exact exponential to be compared with; their anchors may have tails.
template <bool kTail>
void exact_terms(V<double> anchor, const ExpConstants<double>& constants, RowGroup& group, int first) {
  const V<double> tail = kTail ? load(group.anchor_tail + first) : V<double>{};
  const V<double> own = exp_biased<double, true, kTail>(anchor, constants, tail);
  store(group.own + first, own * ExpTable<double>::kUnbias);
  store(group.sum_error + first, V<double>{});
}

// The same for a group whose rows were summed one after the other.
template <class X, bool kTail>
void exact_terms_of_group(RowGroup& group) {
  for (int i = 0; i < kGroup; i += kLanes<X>) {
    if constexpr (sizeof(X) == 4) {
      const auto floats = [i](const double* from) { return narrow(load(from + i), load(from + i + kLanes<double>)); };
      const ExpConstants<float> constants(floats(group.offset), floats(group.exponent));
      exact_terms(floats(group.anchor_logit), floats(group.row_max), constants, group, i);
    } else {
      const ExpConstants<double> constants(load(group.offset + i), load(group.exponent + i));
      exact_terms<kTail>(load(group.anchor_logit + i), constants, group, i);
    }
  }
}

// An anchor further than this below its row's maximum has an exponential too small to divide by.
template <class X>
constexpr double kFar = sizeof(X) == 4 ? -100.0 : -600.0;

// The anchor's element of the gradient, p (W + Z) - anchor_mass: from the others where its own probability is the
// larger part. of_others: what they take of W + Z; rest: W + Z - anchor_mass.
CROSSENT_INLINE V<double> gradient_of_anchor(V<double> own, V<double> others, V<double> of_others, V<double> share,
                                             V<double> anchor_mass, V<double> rest) {
  const auto small = (own < others) & (rest != 0.0);
  return small ? share * own - anchor_mass : rest - of_others;
}

// kMass: targets have mass beside the one-hot part (smoothing, distributions). kLse: lse is needed.
template <class X, bool kMass, bool kLse>
void finish_rows(const Problem& problem, RowGroup& group) {
  for (int i = 0; i < group.rows; i += kLanes<double>) {
    const V<double> none{}, one = broadcast(1.0), nan = broadcast(kNan<double>);
    const V<double> anchor = load(group.anchor_logit + i);
    const V<double> others = load(group.sum_others + i) + load(group.sum_error + i);
    const V<double> own = load(group.own + i);
    const V<double> reference =
        fma<double>(load(group.exponent + i), broadcast(ExpTable<double>::kLn2), load(group.offset + i));
    const auto near = anchor - reference > kFar<X>;
    const V<double> all = near ? others + own : others;
    // Near its row's maximum the anchor's exponential is a normal number, and the loss a log1p.
    const V<double> log_odds = log_ratio<X>(near ? own : one, near ? others : all - one);
    const V<double> core = near ? log_odds : (reference - anchor) + log_odds;
    const V<double> lse = kLse ? reference + log_ratio<X>(one, all - one) : none;
    const V<double> onehot = load(group.target_mass + i);
    const V<double> mass = kMass ? load(group.mass + i) : none;
    const V<double> linear = kMass ? load(group.linear + i) : none;
    const V<double> total = onehot + mass;
    // The one-hot part of a target at -inf is infinite, unless its weight is 0; linear is then measured from 0.
    const V<double> beside = kMass ? mass * lse - linear : none;
    const auto finite = anchor > -kInfinity<double>;
    const V<double> nll = finite ? total * core - linear : (onehot != 0.0 ? onehot * core : none) + beside;
    const auto valid = (all > 0.0) & (all < kInfinity<double>)&(anchor == anchor);  // false for nan
    const V<double> loss = kLse ? fma<double>(broadcast(problem.options.z_loss) * lse, lse, nll) : nll;
    store(group.loss + i, valid ? loss : nan);
    if constexpr (kLse) {
      store(group.core + i, valid ? core : nan);
      store(group.sum_all + i, valid ? all : nan);
      store(group.lse + i, valid ? lse : nan);
    }
    if (!problem.grad) continue;
    const V<double> z = broadcast(2 * problem.options.z_loss) * lse;
    const V<double> share = (total + z) / all;
    store(group.factor + i, valid ? load(group.grad_loss + i) * share : nan);
    const V<double> anchor_mass = kMass ? load(group.anchor_mass + i) : onehot;
    const V<double> rest = (kMass ? total - anchor_mass : none) + z;
    const V<double> own_gradient =
        gradient_of_anchor(own, others, near ? share * others : total + z, share, anchor_mass, rest);
    store(group.grad_anchor + i, valid ? own_gradient : nan);
  }
}

// A group whose sums and exact terms are known.
template <class X>
void finish_group(const Problem& problem, RowGroup& group, bool has_mass) {
  if (has_mass) return finish_rows<X, true, true>(problem, group);
  if (problem.options.z_loss != 0 || problem.lse) return finish_rows<X, false, true>(problem, group);
  finish_rows<X, false, false>(problem, group);
}

}  // namespace
}  // namespace crossent
