// Tiles: rows transposed in L1, so that class k of all of them is one pair of vectors; in and out of memory.
// On the usual path no number is written to a tile by itself: a vector read back from there would wait until it is.
#pragma once

#include "pair.h"
#include "row.h"

namespace crossent {
namespace {

constexpr int kShortRow = 128;  // the most classes a tile holds

// One number of every row of a tile.
template <class X>
using OfRows = Pair<V<X>>;
template <class X>
constexpr int kTileRows = 2 * kLanes<X>;

// Rows of a group, from `first` on: their logits without the targets', later their exponentials, then the gradient.
template <class X>
struct Tile {
  int first = 0, rows = 0;
  OfRows<Bits<X>> target;  // -1: none
  alignas(64) X classes[kShortRow][kTileRows<X>];
};

// What is known of rows before any exponential: the target's logit, and the largest of the others.
template <class X>
struct Seen {
  V<X> anchor = broadcast(-kInfinity<X>), other = anchor;

  // Takes one class of W rows in, and into the tile. Targets become -inf there: they add nothing to a sum.
  CROSSENT_INLINE void take(V<X> logits, V<Bits<X>> is_target, X* to) {
    const V<X> none = broadcast(-kInfinity<X>);
    anchor = is_target ? logits : anchor;
    const V<X> rest = is_target ? none : logits;
    other = max<X>(other, rest);
    store(to, rest);
  }
};

// Whether rows are neighbours in memory: class k of all of them is one vector.
inline bool side_by_side(const RowGroup& group, char* const* rows, int count, Type type) {
  const int checked = group.even && count > 2 ? 2 : count;
  for (int i = 1; i < checked; ++i) {
    if (rows[i] - rows[0] != i * size_of(type)) return false;
  }
  return count > 1;
}

// Whether rows follow each other in memory without a gap.
inline bool end_to_end(const Problem& problem, const Array& array, char* const* rows, int count) {
  return count > 1 && array.class_stride > 0 && rows[1] - rows[0] == problem.classes * array.class_stride;
}

// Asks for the memory of the next tile, where rows lie end to end. Inlined, or the compiler takes a function of
// prefetches alone to have no effect.
template <int kWrites>
CROSSENT_INLINE void prefetch_next(const Problem& problem, const Array& array, char* const* rows, int count) {
  if (!end_to_end(problem, array, rows, count)) return;
  const int64_t bytes = count * (rows[1] - rows[0]);
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(rows[0] + bytes + i, kWrites);
}

// The same where they lie side by side. Classes may be so far apart that all their lines compete for a few places in
// each cache: every other one is asked into L1 past L2, the rest into L2.
CROSSENT_INLINE void prefetch_next_across(const Problem& problem, const Array& array, char* const* rows, int count) {
  const int64_t bytes = count * size_of(array.type);
  const char* ahead = rows[0] + bytes + 63;  // of a line that begins before the tile, the end is missing
  for (int64_t k = 0; k < problem.classes; ++k, ahead += array.class_stride) {
    for (int64_t i = 0; i < bytes; i += 64) {
      if (k % 2 == 0) {
        __builtin_prefetch(ahead + i, 0, 0);
      } else {
        __builtin_prefetch(ahead + i, 0, 2);
      }
    }
  }
}

// Whether rows are long enough for their prefetches to be spread over the loads.
template <class X>
bool spreads_prefetch(const Problem& problem, const Array& array, char* const* rows, int count) {
  return is_native<X>(array, rows[0], array.class_stride) && problem.classes * static_cast<int64_t>(sizeof(X)) >= 64 &&
         end_to_end(problem, array, rows, count);
}

// Whether a tile's rows, side by side from `first` on, can be loaded and stored by whole vectors.
template <class X>
bool is_whole(const Array& array, const char* first, int rows) {
  return rows == kTileRows<X> && is_native<X>(array, first, sizeof(X)) &&
         array.class_stride % static_cast<int64_t>(sizeof(X)) == 0;
}

// The logits of a tile's rows that lie side by side. The loop calls nothing: a call would take its registers.
template <class X>
Pair<Seen<X>> load_across(const Problem& problem, const RowGroup& group, Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  const Array& array = problem.logits;
  const int classes = static_cast<int>(problem.classes);
  const char* at = group.logits[tile.first];
  int64_t stride = array.class_stride;
  if (!is_whole<X>(array, at, tile.rows)) {
    for (int k = 0; k < classes; ++k, at += stride) {
      X* const to = tile.classes[k];
      const X* const staged = stage(array, at, size_of(array.type), tile.rows, to);
      if (staged != to) __builtin_memcpy(to, staged, static_cast<size_t>(tile.rows) * sizeof(X));
      for (int i = tile.rows; i < kTileRows<X>; ++i) to[i] = 0;
    }
    at = reinterpret_cast<const char*>(tile.classes);
    stride = sizeof(tile.classes[0]);
  }
  OfRows<Bits<X>> target = tile.target;  // counted down: 0 at its class
  Pair<Seen<X>> seen;
  for (int k = 0; k < classes; ++k, at += stride) {
    const X* const row = reinterpret_cast<const X*>(at);
    seen.low.take(load(row), target.low == 0, tile.classes[k]);
    seen.high.take(load(row + W), target.high == 0, tile.classes[k] + W);
    target.low -= 1;
    target.high -= 1;
  }
  return seen;
}

// Those of W rows of a tile, from its lane `at` on, each contiguous or to be made so: squares of W x W, transposed.
template <class X>
Seen<X> load_rows(const Problem& problem, const RowGroup& group, V<Bits<X>> target, int at, Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  const Array& array = problem.logits;
  const int classes = static_cast<int>(problem.classes);
  char* const* const from = group.logits + tile.first;
  alignas(64) X buffers[W][kShortRow];
  const X* rows[W];
  uintptr_t addresses = 0;
  for (int i = 0; i < W; ++i) rows[i] = reinterpret_cast<const X*>(from[at + i]);
  for (int i = tile.rows - at > 0 ? tile.rows - at : 0; i < W; ++i) rows[i] = reinterpret_cast<const X*>(from[0]);
  for (int i = 0; i < W; ++i) addresses |= reinterpret_cast<uintptr_t>(rows[i]);
  const bool direct = is_native<X>(array, reinterpret_cast<const char*>(addresses), array.class_stride);
  for (int i = 0; !direct && i < W; ++i) {
    rows[i] = convert(array, reinterpret_cast<const char*>(rows[i]), array.class_stride, classes, buffers[i]);
  }
  // Rows longer than a line are asked for as this tile's are read: a hundred requests at once would wait for each
  // other. Of long ones only half a tile ahead, or L1 overflows.
  constexpr int kAhead = 8192;
  const int rows_ahead = kTileRows<X> * classes * static_cast<int>(sizeof(X)) <= kAhead ? tile.rows : W;
  const int64_t ahead = spreads_prefetch<X>(problem, array, from, tile.rows) ? rows_ahead * classes : 0;
  Seen<X> seen;
  for (int k = 0; k < classes; k += W) {
    V<X> square[W];
    const int width = classes - k < W ? classes - k : W;
#pragma GCC unroll 16
    for (int i = 0; ahead != 0 && i < W; ++i) __builtin_prefetch(rows[i] + ahead + k);
    if (width == W) {
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) square[i] = load(rows[i] + k);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) square[i] = load_first(rows[i] + k, width, -kInfinity<X>);
    }
    transpose<X>(square);
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j) seen.take(square[j], target == j, tile.classes[k + j] + at);
    target -= W;
  }
  return seen;
}

template <class X>
Pair<Seen<X>> load_tile(const Problem& problem, const RowGroup& group, Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  char* const* const rows = group.logits + tile.first;
  alignas(64) Bits<X> targets[kTileRows<X>];
  for (int i = 0; i < kTileRows<X>; ++i) targets[i] = static_cast<Bits<X>>(group.target[tile.first + i]);
  for (int i = tile.rows; i < kTileRows<X>; ++i) targets[i] = -1;
  tile.target = {load(targets), load(targets + W)};
  if (side_by_side(group, rows, tile.rows, problem.logits.type)) {
    prefetch_next_across(problem, problem.logits, rows, tile.rows);
    return load_across(problem, group, tile);
  }
  if (!spreads_prefetch<X>(problem, problem.logits, rows, tile.rows)) {
    prefetch_next<0>(problem, problem.logits, rows, tile.rows);
  }
  Pair<Seen<X>> seen;
  seen.low = load_rows(problem, group, tile.target.low, 0, tile);
  seen.high = load_rows(problem, group, tile.target.high, W, tile);
  return seen;
}

// Asks for the lines of a tile's gradient, where its rows lie side by side, all at once: stores wait for theirs one
// after the other.
template <class X>
CROSSENT_INLINE void prefetch_gradient(const Problem& problem, const RowGroup& group, const Tile<X>& tile) {
  char* const* const rows = group.grad + tile.first;
  if (!side_by_side(group, rows, tile.rows, problem.grad.type)) return;
  const char* at = rows[0];
  for (int64_t k = 0; k < problem.classes; ++k, at += problem.grad.class_stride) {
    for (int i = 0; i < tile.rows * size_of(problem.grad.type); i += 64) __builtin_prefetch(at + i, 1);
  }
}

// One number of every row, side by side in memory.
template <class X>
CROSSENT_INLINE void store_across(const Array& array, char* to, int count, bool whole, const X* numbers) {
  if (!whole) return unstage(array, to, size_of(array.type), count, numbers);
  store(reinterpret_cast<X*>(to), load(numbers));
  store(reinterpret_cast<X*>(to) + kLanes<X>, load(numbers + kLanes<X>));
}

template <class X>
void store_tile(const Problem& problem, const RowGroup& group, const Tile<X>& tile) {
  constexpr int W = kLanes<X>;
  const Array& array = problem.grad;
  const int classes = static_cast<int>(problem.classes), count = tile.rows;
  char* const* const rows = group.grad + tile.first;
  if (side_by_side(group, rows, count, array.type)) {
    const bool whole = is_whole<X>(array, rows[0], count);
    for (int k = 0; k < classes; ++k) {
      store_across(array, rows[0] + k * array.class_stride, count, whole, tile.classes[k]);
    }
    return;
  }
  if (rows[0] != group.logits[tile.first]) prefetch_next<1>(problem, array, rows, count);
  alignas(64) X buffers[W][kShortRow];
  const bool direct = is_native<X>(array, rows[0], array.class_stride);
  for (int at = 0; at < count; at += W) {
    const int here = count - at < W ? count - at : W;
    for (int k = 0; k < classes; k += W) {
      V<X> square[W];
      const int width = classes - k < W ? classes - k : W;
#pragma GCC unroll 16
      for (int j = 0; j < W; ++j) square[j] = load(tile.classes[k + j] + at);
      transpose<X>(square);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) {
        if (i >= here) break;
        X* const to = (direct ? reinterpret_cast<X*>(rows[at + i]) : buffers[i]) + k;
        if (width == W) {
          store(to, square[i]);
        } else {
          store_first(to, square[i], width);
        }
      }
    }
    for (int i = 0; !direct && i < here; ++i) unstage(array, rows[at + i], array.class_stride, classes, buffers[i]);
  }
}

}  // namespace
}  // namespace crossent
