// Short rows, and rows that lie side by side: SIMD across W rows, class after class, through a tile in L1.
// The arithmetic of a row is its own lane's: the same bits wherever the row stands.
#pragma once

#include "finish.h"

namespace crossent {
namespace {

constexpr int kShortRow = 128;  // the most classes a tile holds

// Up to W rows of a group, from `first` on: class k of all of them is classes[k].
template <class X>
struct Tile {
  int first = 0, rows = 0;
  alignas(64) V<X> classes[kShortRow];

  X& at(int row, int64_t k) { return reinterpret_cast<X*>(&classes[k])[row]; }
};

// Whether rows are neighbours in memory: class k of all of them is one vector.
inline bool side_by_side(char* const* rows, int count, Type type) {
  for (int i = 1; i < count; ++i) {
    if (rows[i] - rows[0] != i * size_of(type)) return false;
  }
  return count > 1;
}

// Whether rows follow each other in memory without a gap.
inline bool end_to_end(const Problem& problem, const Array& array, char* const* rows, int count) {
  return count > 1 && array.class_stride > 0 && rows[1] - rows[0] == problem.classes * array.class_stride;
}

// Asks for the memory that later tiles will use: of rows end to end the next tile's, of rows side by side, a line of
// each class, that of the one after next. Inlined, or the compiler takes a function of prefetches alone to have no
// effect.
template <int kWrites>
CROSSENT_INLINE void prefetch_ahead(const Problem& problem, const Array& array, char* const* rows, int count) {
  if (count < 2) return;
  const int64_t step = rows[1] - rows[0];
  if (end_to_end(problem, array, rows, count)) {
    const char* const ahead = rows[0] + count * step;
    for (int64_t i = 0; i < count * step; i += 64) __builtin_prefetch(ahead + i, kWrites);
  } else if (step == size_of(array.type)) {
    const char* const ahead = rows[0] + 2 * count * step;
    for (int64_t k = 0; k < problem.classes; ++k) __builtin_prefetch(ahead + k * array.class_stride, kWrites);
  }
}

template <class X>
void load_tile(const Problem& problem, const RowGroup& group, Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  const Array& array = problem.logits;
  const int classes = static_cast<int>(problem.classes), count = tile.rows;
  char* const* const from = group.logits + tile.first;
  // Rows longer than a line are asked for as this tile's are read: a hundred requests at once would wait for each
  // other.
  const bool spread = is_plain<X>(array, from[0], array.class_stride) && classes * sizeof(X) >= 64 &&
                      end_to_end(problem, array, from, count);
  if (!spread) prefetch_ahead<0>(problem, array, from, count);
  if (side_by_side(from, count, array.type)) {
    alignas(64) X buffer[W];
    const bool plain = array.class_stride % static_cast<int>(sizeof(X)) == 0;
    const char* at = from[0];
    if (count == W && plain && is_plain<X>(array, at, sizeof(X))) {
      for (int k = 0; k < classes; ++k, at += array.class_stride) {
        tile.classes[k] = load(reinterpret_cast<const X*>(at));
      }
      return;
    }
    for (int k = 0; k < classes; ++k, at += array.class_stride) {
      const X* row = stage(array, at, size_of(array.type), count, buffer);
      tile.classes[k] = count == W ? load(row) : load_first(row, count, X(0));
    }
    return;
  }
  alignas(64) X buffers[W][kShortRow];
  const X* rows[W];
  uintptr_t addresses = 0;
  for (int i = 0; i < W; ++i) {
    rows[i] = reinterpret_cast<const X*>(from[i < count ? i : 0]);
    addresses |= reinterpret_cast<uintptr_t>(rows[i]);
  }
  if (!is_plain<X>(array, reinterpret_cast<const char*>(addresses), array.class_stride)) {
    for (int i = 0; i < W; ++i) {
      rows[i] = convert(array, from[i < count ? i : 0], array.class_stride, classes, buffers[i]);
    }
  }
  for (int k = 0; k < classes; k += W) {
    V<X> square[W];
    const int width = classes - k < W ? classes - k : W;
#pragma GCC unroll 16
    for (int i = 0; spread && i < W; ++i) __builtin_prefetch(rows[i] + count * classes + k);
    if (width == W) {
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) square[i] = load(rows[i] + k);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) square[i] = load_first(rows[i] + k, width, X(0));
    }
    transpose<X>(square);
    // A tile has room for the last square's empty classes too.
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j) tile.classes[k + j] = square[j];
  }
}

template <class X>
void store_tile(const Problem& problem, const RowGroup& group, const Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  const Array& array = problem.grad;
  const int classes = static_cast<int>(problem.classes), count = tile.rows;
  char* const* const rows = group.grad + tile.first;
  if (rows[0] != group.logits[tile.first]) prefetch_ahead<1>(problem, array, rows, count);
  if (side_by_side(rows, count, array.type)) {
    for (int k = 0; k < classes; ++k) {
      char* const to = rows[0] + k * array.class_stride;
      if (count == W && is_plain<X>(array, to, sizeof(X))) {
        store(reinterpret_cast<X*>(to), tile.classes[k]);
      } else {
        unstage(array, to, size_of(array.type), count, reinterpret_cast<const X*>(&tile.classes[k]));
      }
    }
    return;
  }
  alignas(64) X buffers[W][kShortRow];
  const bool direct = is_plain<X>(array, rows[0], array.class_stride);
  for (int k = 0; k < classes; k += W) {
    V<X> square[W];
    const int width = classes - k < W ? classes - k : W;
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j) square[j] = tile.classes[k + j];
    transpose<X>(square);
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) {
      if (i >= count) break;
      X* const to = (direct ? reinterpret_cast<X*>(rows[i]) : buffers[i]) + k;
      if (width == W) {
        store(to, square[i]);
      } else {
        store_first(to, square[i], width);
      }
    }
  }
  if (direct) return;
  for (int i = 0; i < count; ++i) unstage(array, rows[i], array.class_stride, classes, buffers[i]);
}

// Doubles beside the X of a tile: two vectors for float, one for double.
template <class X>
struct Wide {
  V<double> part[sizeof(double) / sizeof(X)] = {};

  CROSSENT_INLINE void add(V<X> value) {
    if constexpr (sizeof(X) == 4) {
      part[0] += widen(value, 0);
      part[1] += widen(value, 1);
    } else {
      part[0] += value;
    }
  }
};

template <class X>
CROSSENT_INLINE void put_wide(V<X> value, double* to) {
  Wide<X> wide;
  wide.add(value);
  for (unsigned i = 0; i < sizeof(wide.part) / sizeof(wide.part[0]); ++i) store(to + i * kLanes<double>, wide.part[i]);
}

template <class X>
CROSSENT_INLINE V<X> largest_of_tile(const Tile<X>& tile, int classes) {
  V<X> m0 = broadcast(-kInfinity<X>), m1 = m0, m2 = m0, m3 = m0;
  int k = 0;
  for (; k + 4 <= classes; k += 4) {
    m0 = max<X>(m0, tile.classes[k]);
    m1 = max<X>(m1, tile.classes[k + 1]);
    m2 = max<X>(m2, tile.classes[k + 2]);
    m3 = max<X>(m3, tile.classes[k + 3]);
  }
  for (; k < classes; ++k) m0 = max<X>(m0, tile.classes[k]);
  return max<X>(max<X>(m0, m1), max<X>(m2, m3));
}

// The exponentials of a tile, in place if kKeep; returns their sums. largest: of each row.
template <class X, bool kShifted, bool kKeep>
Sum<X> sum_classes(Tile<X>& tile, int classes, V<X> largest, const ExpConstants<X>& constants) {
  const ExpConstants<X> local = constants;
  constexpr int kBatch = kBatchLanes<X> / kLanes<X>;
  Sum<X> sum(power_of<X>(largest, local));
  int k = 0;
  for (; k + kBatch <= classes; k += kBatch) {
    X* const at = reinterpret_cast<X*>(&tile.classes[k]);
    Batch<X> logit;
    load_into<X>(logit, at);
    const auto term = exp_term<X, kShifted>(logit, local);
    if constexpr (kKeep) store<X>(at, term.value);
    sum.add(term);
  }
  for (; k < classes; ++k) {
    const auto term = exp_term<X, kShifted>(tile.classes[k], local);
    if constexpr (kKeep) tile.classes[k] = term.value;
    sum.add(term);
  }
  return sum;
}

// sum of weight_k (u_k - base) of every row, times what smoothing gives to a class.
template <class X>
void smooth_tile(const Problem& problem, const Tile<X>& tile, V<X> anchor, RowGroup& group) {
  constexpr int kParts = sizeof(double) / sizeof(X);
  const V<X> base = anchor > -kInfinity<X> ? anchor : V<X>{};
  for (int part = 0; part < kParts; ++part) {
    V<double> sum{};
    for (int k = 0; k < static_cast<int>(problem.classes); ++k) {
      const double weight = problem.weight ? problem.weight[k] : 1;
      if (weight != 0) sum += weight * (to_wide(tile.classes[k], part) - to_wide(base, part));
    }
    store(group.linear + tile.first + part * kLanes<double>, even_mass(problem) * sum);
  }
}

// The exponentials of a tile in place, and the sums of its rows without each one's target into the group.
template <class X>
void sum_tile(const Problem& problem, RowGroup& group, Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  using Table = ExpTable<X>;
  const int classes = static_cast<int>(problem.classes);
  alignas(64) X anchors[W];
  const int64_t* const targets = group.target + tile.first;
  for (int i = 0; i < W; ++i) {
    const int64_t target = i < tile.rows ? targets[i] : -1;
    anchors[i] = target < 0 ? -kInfinity<X> : tile.at(i, target);
  }
  if (has_mass(problem)) smooth_tile<X>(problem, tile, load(anchors), group);
  // From here on a tile's targets are -inf: they add nothing.
  for (int i = 0; i < tile.rows; ++i) {
    if (targets[i] >= 0) tile.at(i, targets[i]) = -kInfinity<X>;
  }
  const V<X> other = largest_of_tile(tile, classes);
  const V<X> largest = max<X>(other, load(anchors));
  const auto far = (largest >= static_cast<X>(kShiftFrom)) | (largest <= static_cast<X>(-kShiftFrom));
  const auto finite = (largest > -kInfinity<X>)&(largest < kInfinity<X>);
  const V<X> zero{};
  const V<X> offset = far & finite ? largest : zero;
  const V<X> exponent = far | ~finite ? zero : (largest * kLog2e<X> + Table::kRound) - Table::kRound;
  const ExpConstants<X> constants(offset, exponent);
  const bool shifts = any_lane(offset != zero);
  const Sum<X> sum = shifts         ? sum_classes<X, true, true>(tile, classes, other, constants)
                     : problem.grad ? sum_classes<X, false, true>(tile, classes, other, constants)
                                    : sum_classes<X, false, false>(tile, classes, other, constants);
  Wide<X> poison;  // nan for a row of -inf alone, or with +inf or nan
  poison.add(finite ? zero : broadcast(kNan<X>));
  for (int i = 0; i < Sum<X>::kParts; ++i) {
    const V<double> others = sum.part(i) * Table::kUnbias + poison.part[i];
    const auto none = (to_wide(other, i) == -kInfinity<double>)&(others == others);  // nan need not show in a maximum
    store(group.sum_others + tile.first + i * kLanes<double>, none ? V<double>{} : others);
  }
  if constexpr (sizeof(X) == 4) {
    exact_terms(load(anchors), largest, constants, group, tile.first);
  } else {
    exact_terms<false>(load(anchors), constants, group, tile.first);
  }
  put_wide<X>(load(anchors), group.anchor_logit + tile.first);
  put_wide<X>(offset, group.offset + tile.first);
  put_wide<X>(exponent, group.exponent + tile.first);
}

// `values` of W rows times a number, as X.
template <class X, class Values>
CROSSENT_INLINE V<X> narrow_from(Values values, double by) {
  if constexpr (sizeof(X) == 4) {
    return narrow(values(0) * by, values(kLanes<double>) * by);
  } else {
    return values(0) * by;
  }
}

// For factors so large or small that their head or tail is no normal X.
template <class X>
__attribute__((noinline)) void scale_tile_slowly(const Problem& problem, const RowGroup& group, int classes,
                                                 Tile<X>& tile) {
  for (int i = 0; i < tile.rows; ++i) {
    const int row = tile.first + i;
    const double mass = even_mass(problem) * group.grad_loss[row];
    for (int k = 0; k < classes; ++k) {
      const X minus = static_cast<X>(mass * (problem.weight ? problem.weight[k] : 1));
      X& value = tile.at(i, k);
      value = group.ignored[row] ? X(0) : scale_slowly(value, group.factor[row]) - minus;
    }
  }
}

// The kept exponentials of a tile, rescaled row by row, with each target's own element: the gradient.
template <class X>
void scale_tile(const Problem& problem, const RowGroup& group, Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  const int classes = static_cast<int>(problem.classes);
  alignas(64) X heads[W] = {}, tails[W] = {};
  alignas(64) Bits<X> zeroes[W] = {};
  bool safe = true;
  for (int i = 0; i < tile.rows; ++i) {
    const double factor = group.factor[tile.first + i];
    const double unbiased = factor * ExpTable<X>::kUnbias;
    heads[i] = static_cast<X>(unbiased);
    tails[i] = static_cast<X>(unbiased - static_cast<double>(heads[i]));
    safe = safe && is_ordinary<X>(factor);
    zeroes[i] = group.ignored[tile.first + i] ? -1 : 0;
  }
  const V<X> head = load(heads), tail = load(tails);
  const auto zeroed = bit_cast<V<Bits<X>>>(zeroes);
  if (!safe) {
    scale_tile_slowly(problem, group, classes, tile);
  } else if (has_mass(problem)) {
    const auto masses = [&](int i) { return even_mass(problem) * load(group.grad_loss + tile.first + i); };
    for (int k = 0; k < classes; ++k) {
      const V<X> value = tile.classes[k];
      const V<X> mass = narrow_from<X>(masses, problem.weight ? problem.weight[k] : 1);
      tile.classes[k] = zeroed ? V<X>{} : fma<X>(value, head, fma<X>(value, tail, -mass));
    }
  } else {
    for (int k = 0; k < classes; ++k) {
      const V<X> value = tile.classes[k];
      const V<X> scaled = sizeof(X) == 4 ? fma<X>(value, head, value * tail) : value * head;
      tile.classes[k] = zeroed ? V<X>{} : scaled;
    }
  }
  for (int i = 0; i < tile.rows; ++i) {
    const int row = tile.first + i;
    if (group.target[row] < 0) continue;
    tile.at(i, group.target[row]) = static_cast<X>(group.grad_loss[row] * group.grad_anchor[row]);
  }
}

}  // namespace
}  // namespace crossent
