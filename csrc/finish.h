// From a row's sums to its loss and to the factors of its gradient: W rows at once, in double.
//   core = lse - u_anchor = log(1 + sum_others / exp(u_anchor)), exact however small
//   nll  = W core - linear,  loss = nll + z_loss lse^2,  W = target_mass + mass
// The anchor of plain rows is their target, and linear is 0; that of general rows is their largest class, so that core
// and -linear are both sums of what is not negative.
#pragma once

#include "row.h"

namespace crossent {
namespace {

// Two exponentials of every row, more exact than the terms of its sum.
struct ExactTerms {
  alignas(64) double own[kGroup];    // exp of the anchor, relative to the row's reference
  alignas(64) double error[kGroup];  // what the sum lacks because its largest term was rounded
};

// The largest term's rounding error would reach every probability of a row summed in float. Its pieces, added in
// double, are exact to 2^-27.
inline void exact_terms_of_floats(const RowGroup& group, ExactTerms& terms) {
  for (int i = 0; i < kGroup; i += kLanes<float>) {
    const auto floats = [i](const double* from) { return narrow(load(from + i), load(from + i + kLanes<double>)); };
    const V<float> offset = floats(group.offset), anchor = floats(group.anchor_logit);
    const V<float> row_max = floats(group.row_max);
    const ExpConstants<float> constants(offset, floats(group.exponent));
    const auto pieces_of = [&](V<float> logit) {
      return exp_pieces<float, false>(max<float>(constants.lowest, logit - offset), V<float>{}, constants.round);
    };
    const auto exact = [](const ExpPieces<float>& e, int half) {
      const V<double> power = widen(e.power, half) * ExpTable<float>::kUnbias;
      return power + power * (widen(e.head, half) + widen(e.rest, half));
    };
    const ExpPieces<float> own = pieces_of(anchor), largest = pieces_of(row_max);
    const V<float> minus_one = largest.head + largest.rest;
    const V<float> rounded = fma<float>(minus_one, largest.power, largest.power);
    const V<float> lost = fma<float>(minus_one, largest.power, largest.power - rounded);
    const V<float> summed = anchor != row_max ? rounded : V<float>{};
    for (int half = 0; half < 2; ++half) {
      const int at = i + half * kLanes<double>;
      store(terms.own + at, exact(own, half));
      const V<double> in_sum = (widen(rounded, half) + widen(lost, half)) * ExpTable<float>::kUnbias;
      store(terms.error + at, widen(summed, half) != 0.0 ? exact(largest, half) - in_sum : V<double>{});
    }
  }
}

// Sums in double have no more exact exponential to be compared with; their anchors may have tails.
template <bool kTail>
void exact_terms_of_doubles(const RowGroup& group, ExactTerms& terms) {
  for (int i = 0; i < kGroup; i += kLanes<double>) {
    const ExpConstants<double> constants(load(group.offset + i), load(group.exponent + i));
    const V<double> tail = kTail ? load(group.anchor_tail + i) : V<double>{};
    const V<double> own = exp_biased<double, true, kTail>(load(group.anchor_logit + i), constants, tail);
    store(terms.own + i, own * ExpTable<double>::kUnbias);
    store(terms.error + i, V<double>{});
  }
}

// kMass: targets have mass beside the one-hot part (smoothing, distributions). kLse: the loss needs lse.
template <class X, bool kMass, bool kLse>
void finish_rows(const Problem& problem, RowGroup& group) {
  ExactTerms terms;
  if constexpr (sizeof(X) == 4) {
    exact_terms_of_floats(group, terms);
  } else {
    exact_terms_of_doubles<kMass>(group, terms);
  }
  // An anchor further than this below its row's maximum has an exponential too small to divide by.
  constexpr double kFar = sizeof(X) == 4 ? -100.0 : -600.0;
  for (int i = 0; i < group.rows; i += kLanes<double>) {
    const V<double> none{};
    const V<double> offset = load(group.offset + i), exponent = load(group.exponent + i);
    const V<double> anchor = load(group.anchor_logit + i);
    const V<double> others = load(group.sum_others + i) + load(terms.error + i);
    const V<double> own = load(terms.own + i);
    const V<double> reference = fma<double>(exponent, broadcast(ExpTable<double>::kLn2), offset);
    const auto near = anchor - reference > kFar;
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
    // The one-hot part of a target at -inf is infinite, unless its weight is 0; linear is then measured from 0.
    const V<double> beside = kMass ? mass * lse - linear : none;
    const auto finite = anchor > -kInfinity<double>;
    const V<double> nll = finite ? total * core - linear : (onehot != 0.0 ? core : none) + beside;
    const auto valid = (all > 0.0) & (all < kInfinity<double>)&(anchor == anchor);  // false for nan
    const V<double> nan = broadcast(kNan<double>);
    store(group.core + i, valid ? core : nan);
    store(group.sum_all + i, valid ? all : nan);
    store(group.loss + i, valid ? fma<double>(broadcast(problem.z_loss) * lse, lse, nll) : nan);
    store(group.lse + i, valid ? lse : nan);
    if (!problem.grad) continue;
    const V<double> grad_loss = load(group.grad_loss + i);
    const V<double> z = broadcast(2 * problem.z_loss) * lse;
    const V<double> share = (total + z) / all;
    store(group.factor + i, valid ? grad_loss * share : nan);
    const V<double> rest = kMass ? total - load(group.anchor_mass + i) : none;
    // The anchor's element: from the others where its own probability is the larger part.
    const V<double> from_others = rest + z - (near ? share * others : total + z);
    const V<double> from_own = share * own - (kMass ? load(group.anchor_mass + i) : onehot);
    const auto small = (own < others) & (rest + z != 0.0);
    store(group.grad_anchor + i, valid ? (small ? from_own : from_others) : nan);
  }
}

template <class X>
void finish_group(const Problem& problem, RowGroup& group, bool has_mass) {
  if (has_mass) return finish_rows<X, true, true>(problem, group);
  if (problem.z_loss != 0) return finish_rows<X, false, true>(problem, group);
  finish_rows<X, false, false>(problem, group);
}

}  // namespace
}  // namespace crossent
