// Short rows, and rows that lie side by side: SIMD across rows, class after class, through a tile.
// The arithmetic of a row is its own lane's: the same bits wherever the row stands.
#pragma once

#include "finish.h"
#include "tile.h"

namespace crossent {
namespace {

// Doubles of W rows from a vector of X: one vector, or of floats two.
template <class X>
CROSSENT_INLINE void store_wide(double* to, V<X> value) {
  for (int i = 0; i < kLanes<X>; i += kLanes<double>) store(to + i, to_wide(value, i / kLanes<double>));
}

// And back: `values` are vectors of doubles by their row.
template <class X, class Values>
CROSSENT_INLINE V<X> narrow_from(Values values) {
  if constexpr (sizeof(X) == 4) {
    return narrow(values(0), values(kLanes<double>));
  } else {
    return values(0);
  }
}

// The exponentials of a tile, in place if kKeep; returns their sums. largest: of each row.
template <class X, bool kShifted, bool kKeep>
Sum<X, OfRows<X>> sum_classes(Tile<X>& tile, int classes, OfRows<X> largest,
                              const ExpConstants<X, OfRows<X>>& constants) {
  const ExpConstants<X, OfRows<X>> local = constants;
  Sum<X, OfRows<X>> sum(power_of<X>(largest, local));
  for_terms<X>(
      classes,
      [&](int k)
          __attribute__((always_inline)) { return reduce_logit<X, kShifted>(load_pair(tile.classes[k]), local); },
      [&](int k, ExpTerm<OfRows<X>> term) __attribute__((always_inline)) {
        if constexpr (kKeep) store<X>(tile.classes[k], term.value);
        sum.add(term);
      });
  return sum;
}

// sum of weight_k (u_k - base) of W rows, times what smoothing gives to a class, from a tile's lane `at` on.
template <class X>
void smooth_rows(const Problem& problem, const Tile<X>& tile, int at, V<Bits<X>> target, V<X> anchor, double* linear) {
  constexpr int kParts = sizeof(double) / sizeof(X);
  const V<X> base = anchor > -kInfinity<X> ? anchor : V<X>{};
  V<double> sum[kParts] = {};
  for (int k = 0; k < static_cast<int>(problem.classes); ++k) {
    const double weight = problem.weight ? problem.weight[k] : 1;
    if (weight == 0) continue;
    const V<X> logit = target == k ? anchor : load(tile.classes[k] + at);
    for (int i = 0; i < kParts; ++i) sum[i] += weight * (to_wide(logit, i) - to_wide(base, i));
  }
  for (int i = 0; i < kParts; ++i) store(linear + i * kLanes<double>, even_mass(problem) * sum[i]);
}

// What W rows are measured against; nan for a row of -inf alone, or with +inf or nan.
template <class X>
struct RowsReference {
  V<X> offset, exponent, poison;

  explicit CROSSENT_INLINE RowsReference(V<X> largest) {
    const V<X> zero{}, round = broadcast<X>(ExpTable<X>::kRound);
    const auto far = (largest >= static_cast<X>(kShiftFrom)) | (largest <= static_cast<X>(-kShiftFrom));
    const auto finite = (largest > -kInfinity<X>)&(largest < kInfinity<X>);
    offset = far & finite ? largest : zero;
    exponent = far | ~finite ? zero : (largest * kLog2e<X> + round) - round;
    poison = finite ? zero : broadcast(kNan<X>);
  }
};

// What becomes of W rows' sums: into the group, from its row `at` on.
template <class X>
CROSSENT_INLINE void record_sums(const RowsReference<X>& reference, Seen<X> seen, V<X> held, V<X> lost, int at,
                                 RowGroup& group) {
  for (int i = 0; i < kLanes<X> / kLanes<double>; ++i) {
    const V<double> others = joined<X>(held, lost, i) * ExpTable<X>::kUnbias + to_wide(reference.poison, i);
    // A nan need not show in a maximum.
    const auto none = (to_wide(seen.other, i) == -kInfinity<double>)&(others == others);
    store(group.sum_others + at + i * kLanes<double>, none ? V<double>{} : others);
  }
  const ExpConstants<X> constants(reference.offset, reference.exponent);
  if constexpr (sizeof(X) == 4) {
    exact_terms(seen.anchor, max<X>(seen.other, seen.anchor), constants, group, at);
  } else {
    exact_terms<false>(seen.anchor, constants, group, at);
  }
  store_wide<X>(group.anchor_logit + at, seen.anchor);
  store_wide<X>(group.offset + at, reference.offset);
  store_wide<X>(group.exponent + at, reference.exponent);
}

// The exponentials of a tile in place, and the sums of its rows without each one's target into the group.
template <class X>
void sum_tile(const Problem& problem, RowGroup& group, const Pair<Seen<X>>& seen, Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  const int classes = static_cast<int>(problem.classes);
  if (has_mass(problem)) {
    smooth_rows(problem, tile, 0, tile.target.low, seen.low.anchor, group.linear + tile.first);
    smooth_rows(problem, tile, W, tile.target.high, seen.high.anchor, group.linear + tile.first + W);
  }
  const RowsReference<X> low(max<X>(seen.low.other, seen.low.anchor));
  const RowsReference<X> high(max<X>(seen.high.other, seen.high.anchor));
  const ExpConstants<X, OfRows<X>> constants(OfRows<X>{low.offset, high.offset},
                                             OfRows<X>{low.exponent, high.exponent});
  const OfRows<X> other{seen.low.other, seen.high.other};
  const bool shifts = any_lane(constants.offset.low != X(0)) || any_lane(constants.offset.high != X(0));
  const auto sum = shifts         ? sum_classes<X, true, true>(tile, classes, other, constants)
                   : problem.grad ? sum_classes<X, false, true>(tile, classes, other, constants)
                                  : sum_classes<X, false, false>(tile, classes, other, constants);
  const OfRows<X> held = sum.held(), lost = sum.lost();
  record_sums(low, seen.low, held.low, lost.low, tile.first, group);
  record_sums(high, seen.high, held.high, lost.high, tile.first + W, group);
}

// One row of a tile, for a factor so large or small that its head or tail is no normal X.
template <class X>
__attribute__((noinline, cold)) void scale_row_slowly(const Problem& problem, const RowGroup& group,
                                                      const Tile<X>& tile, int lane, X* to) {
  const int row = tile.first + lane;
  const double mass = even_mass(problem) * group.grad_loss[row];
  for (int k = 0; k < static_cast<int>(problem.classes); ++k) {
    const X minus = static_cast<X>(mass * (problem.weight ? problem.weight[k] : 1));
    const X scaled = scale_slowly(tile.classes[k][lane], group.factor[row]) - minus;
    to[k] = group.ignored(row) ? X(0) : scaled;
  }
}

// What rescales the kept exponentials of W rows, from row `at` of the group on: a factor as head and tail.
template <class X>
struct RowsScale {
  V<X> head, tail;
  V<Bits<X>> ignored;

  RowsScale(const RowGroup& group, int at, V<Bits<X>> target) {
    const auto unbiased = [&](int i) { return load(group.factor + at + i) * ExpTable<X>::kUnbias; };
    const V<X> rounded = narrow_from<X>(unbiased);
    head = rounded;
    tail = narrow_from<X>([&](int i) { return unbiased(i) - to_wide(rounded, i / kLanes<double>); });
    ignored = (target < 0) & (group.indexed ? -1 : 0);
  }

  CROSSENT_INLINE void apply(X* to) const {
    const V<X> value = load(to), zero{};
    const V<X> scaled = sizeof(X) == 4 ? fma<X>(value, head, value * tail) : value * head;
    store(to, ignored ? zero : scaled);
  }
  // minus: what smoothing takes off.
  CROSSENT_INLINE void apply(X* to, V<X> minus) const {
    const V<X> value = load(to), zero{};
    store(to, ignored ? zero : fma<X>(value, head, fma<X>(value, tail, -minus)));
  }
};

// The kept exponentials of a tile, rescaled: the gradient but for the targets' elements.
template <class X>
CROSSENT_INLINE void scale_tile(const Problem& problem, const RowGroup& group, Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  const RowsScale<X> low(group, tile.first, tile.target.low), high(group, tile.first + W, tile.target.high);
  const int classes = static_cast<int>(problem.classes);
  if (!has_mass(problem)) {
    for (int k = 0; k < classes; ++k) {
      low.apply(tile.classes[k]);
      high.apply(tile.classes[k] + W);
    }
    return;
  }
  const double* const grad_loss = group.grad_loss + tile.first;
  for (int k = 0; k < classes; ++k) {
    const double mass = even_mass(problem) * (problem.weight ? problem.weight[k] : 1);
    const auto minus = [&](int at) { return narrow_from<X>([&](int i) { return load(grad_loss + at + i) * mass; }); };
    low.apply(tile.classes[k], minus(0));
    high.apply(tile.classes[k] + W, minus(W));
  }
}

// The same where some row's factor is out of the ordinary: that row alone goes another way, so that no row's bits
// depend on its neighbours.
template <class X>
__attribute__((noinline, cold)) void scale_odd_tile(const Problem& problem, const RowGroup& group, Tile<X>& tile) {
  X odd[kTileRows<X>][kShortRow];
  const auto is_odd = [&](int i) { return !is_ordinary<X>(group.factor[tile.first + i]); };
  for (int i = 0; i < tile.rows; ++i) {
    if (is_odd(i)) scale_row_slowly(problem, group, tile, i, odd[i]);
  }
  scale_tile(problem, group, tile);
  for (int i = 0; i < tile.rows; ++i) {
    for (int k = 0; is_odd(i) && k < static_cast<int>(problem.classes); ++k) tile.classes[k][i] = odd[i][k];
  }
}

template <class X>
CROSSENT_INLINE bool is_ordinary_tile(const RowGroup& group, const Tile<X>& tile) {
  bool ordinary = true;
  for (int i = 0; i < tile.rows; ++i) ordinary = ordinary && is_ordinary<X>(group.factor[tile.first + i]);
  return ordinary;
}

}  // namespace
}  // namespace crossent
