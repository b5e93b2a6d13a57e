// Short rows, and rows that lie side by side: SIMD across W rows, class after class, through a tile in L1.
// The arithmetic of a row is its own lane's: the same bits wherever the row stands.
#pragma once

#include "finish.h"

namespace crossent {
namespace {

constexpr int kShortRow = 128;  // the most classes a tile holds

// Class k of W rows is tile[k].
template <class X>
struct Tile {
  alignas(64) V<X> classes[kShortRow];
};

// Whether the rows of a group are neighbours in memory: class k of all of them is one vector.
inline bool side_by_side(const RowGroup& group, char* const* rows, Type type) {
  for (int i = 1; i < group.rows; ++i) {
    if (rows[i] - rows[0] != i * size_of(type)) return false;
  }
  return group.rows > 1;
}

template <class X>
void load_tile(const Problem& problem, const RowGroup& group, Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  const Array& array = problem.logits;
  const int classes = static_cast<int>(problem.classes);
  if (side_by_side(group, group.logits, array.type)) {
    alignas(64) X buffer[W];
    for (int k = 0; k < classes; ++k) {
      const X* from = stage(array, group.logits[0] + k * array.class_stride, size_of(array.type), group.rows, buffer);
      tile.classes[k] = group.rows == W ? load(from) : load_first(from, group.rows, X(0));
    }
    return;
  }
  alignas(64) X buffers[W][kShortRow];
  const X* rows[W];
  for (int i = 0; i < W; ++i) {
    rows[i] = stage(array, group.logits[i < group.rows ? i : 0], array.class_stride, classes, buffers[i]);
  }
  for (int k = 0; k < classes; k += W) {
    V<X> square[W];
    const int width = classes - k < W ? classes - k : W;
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) square[i] = width == W ? load(rows[i] + k) : load_first(rows[i] + k, width, X(0));
    transpose<X>(square);
    for (int j = 0; j < width; ++j) tile.classes[k + j] = square[j];
  }
}

template <class X>
void store_tile(const Problem& problem, const RowGroup& group, const Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  const Array& array = problem.grad;
  const int classes = static_cast<int>(problem.classes);
  if (side_by_side(group, group.grad, array.type)) {
    for (int k = 0; k < classes; ++k) {
      char* const to = group.grad[0] + k * array.class_stride;
      if (group.rows == W && is_plain<X>(array, to, sizeof(X))) {
        store(reinterpret_cast<X*>(to), tile.classes[k]);
      } else {
        unstage(array, to, size_of(array.type), group.rows, reinterpret_cast<const X*>(&tile.classes[k]));
      }
    }
    return;
  }
  alignas(64) X buffers[W][kShortRow];
  const bool direct = is_plain<X>(array, group.grad[0], array.class_stride);
  for (int k = 0; k < classes; k += W) {
    V<X> square[W];
    const int width = classes - k < W ? classes - k : W;
    for (int j = 0; j < W; ++j) square[j] = tile.classes[k + (j < width ? j : 0)];
    transpose<X>(square);
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) {
      if (i >= group.rows) break;
      X* const to = (direct ? reinterpret_cast<X*>(group.grad[i]) : buffers[i]) + k;
      if (width == W) {
        store(to, square[i]);
      } else {
        store_first(to, square[i], width);
      }
    }
  }
  if (direct) return;
  for (int i = 0; i < group.rows; ++i) unstage(array, group.grad[i], array.class_stride, classes, buffers[i]);
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

// The exponentials of a tile in place, and the sums of its rows without each one's target into the group.
template <class X>
void sum_tile(const Problem& problem, RowGroup& group, Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  using Table = ExpTable<X>;
  const int classes = static_cast<int>(problem.classes);
  V<Bits<X>> target;
  V<X> largest = broadcast(-kInfinity<X>);
  for (int i = 0; i < W; ++i) target[i] = static_cast<Bits<X>>(i < group.rows ? group.target[i] : -1);
  for (int k = 0; k < classes; ++k) largest = max<X>(largest, tile.classes[k]);
  for (int i = 0; i < W; ++i) {
    group.anchor_logit[i] = -kInfinity<double>;
    if (target[i] >= 0) group.anchor_logit[i] = static_cast<double>(tile.classes[target[i]][i]);
  }
  const auto far = (largest >= static_cast<X>(kShiftFrom)) | (largest <= static_cast<X>(-kShiftFrom));
  const auto finite = (largest > -kInfinity<X>) & (largest < kInfinity<X>);
  const V<X> zero{};
  const V<X> offset = far & finite ? largest : zero;
  const V<X> exponent = far | ~finite ? zero : (largest * kLog2e<X> + Table::kRound) - Table::kRound;
  const ExpConstants<X> constants(offset, exponent);
  Wide<X> sum;
  constexpr int kRun = 32;  // classes summed as X before they go on in double
  for (int from = 0; from < classes; from += kRun) {
    const int to = from + kRun < classes ? from + kRun : classes;
    V<X> partial[4] = {};
    const auto add = [&](int k, V<X>& into) __attribute__((always_inline)) {
      const V<X> value = exp_biased<X, true>(tile.classes[k], constants);
      tile.classes[k] = value;
      into += target != static_cast<Bits<X>>(k) ? value : zero;
    };
    int k = from;
    for (; k + 4 <= to; k += 4) {
      add(k, partial[0]);
      add(k + 1, partial[1]);
      add(k + 2, partial[2]);
      add(k + 3, partial[3]);
    }
    for (; k < to; ++k) add(k, partial[k & 3]);
    sum.add((partial[0] + partial[1]) + (partial[2] + partial[3]));
  }
  for (unsigned i = 0; i < sizeof(sum.part) / sizeof(sum.part[0]); ++i) {
    store(group.sum_others + i * kLanes<double>, sum.part[i] * Table::kUnbias);
  }
  put_wide<X>(largest, group.row_max);
  put_wide<X>(offset, group.offset);
  put_wide<X>(exponent, group.exponent);
  for (int i = 0; i < W; ++i) {
    if (!finite[i]) group.sum_others[i] = kNan<double>;
  }
}

// The kept exponentials of a tile, rescaled row by row, with each target's own element: the gradient.
template <class X>
void scale_tile(const Problem& problem, const RowGroup& group, Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  const int classes = static_cast<int>(problem.classes);
  constexpr double kSafe = sizeof(X) == 4 ? 0x1p90 : 0x1p900;
  V<X> head{}, tail{};
  V<Bits<X>> zeroed{};
  bool safe = true;
  for (int i = 0; i < W; ++i) {
    const double factor = group.factor[i] * ExpTable<X>::kUnbias;
    head[i] = static_cast<X>(factor);
    tail[i] = static_cast<X>(factor - static_cast<double>(head[i]));
    const double size = factor < 0 ? -factor : factor;
    safe = safe && (i >= group.rows || size == 0 || (size < kSafe && size > 1 / kSafe) || size != size);
    zeroed[i] = i < group.rows && group.ignored[i] ? -1 : 0;
  }
  for (int k = 0; k < classes; ++k) {
    const V<X> value = tile.classes[k];
    V<X> scaled = sizeof(X) == 4 ? fma<X>(value, head, value * tail) : value * head;
    if (!safe) {
      for (int i = 0; i < W; ++i) {
        scaled[i] = static_cast<X>(static_cast<double>(value[i]) * ExpTable<X>::kUnbias * group.factor[i]);
      }
    }
    tile.classes[k] = zeroed ? V<X>{} : scaled;
  }
  for (int i = 0; i < group.rows; ++i) {
    if (group.target[i] >= 0) tile.classes[group.target[i]][i] = static_cast<X>(group.grad_anchor[i]);
  }
}

}  // namespace
}  // namespace crossent
