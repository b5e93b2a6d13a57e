// The second pass over a row of plain logits: the kept exponentials, rescaled, are the gradient.
//   dl/du_k = exp(u_k) * factor;  the target's own element, where p - 1 would cancel, comes from the sum of the others.
#pragma once

#include "row_loss.h"

namespace crossent {
namespace {

// What turns kept exponentials into a gradient: exp(u_k) * factor - mass * weight_k, the second part for smoothing
// only.
struct Scale {
  double factor = 0, mass = 0;
};

template <class X>
__attribute__((noinline)) void scale_block_slowly(const X* from, int count, const Scale& scale, const X* mass, X* to) {
  for (int i = 0; i < count; ++i) to[i] = scale_slowly(from[i], scale.factor) - (mass ? mass[i] : X(0));
}

// to = from * factor / 2^kBias - mass, rounded once: the factor is held as a head and a tail. from may be to. mass: one
// number for each class if kMass.
template <class X, bool kMass>
void scale_block(const X* from, int count, const Scale& scale, const X* mass, X* to) {
  constexpr int W = kLanes<X>;
  if (!is_ordinary<X>(scale.factor)) return scale_block_slowly(from, count, scale, kMass ? mass : nullptr, to);
  const double factor = scale.factor * ExpTable<X>::kUnbias;
  const X head_of = static_cast<X>(factor);
  const V<X> head = broadcast(head_of);
  const V<X> tail = broadcast(static_cast<X>(factor - static_cast<double>(head_of)));
  const auto scaled = [&](V<X> value, V<X> minus) __attribute__((always_inline)) {
    if constexpr (kMass) return fma<X>(value, head, value * tail - minus);
    if constexpr (sizeof(X) == 8) return value * head;
    return fma<X>(value, head, value * tail);
  };
  const auto minus_at = [&](int i) __attribute__((always_inline)) { return kMass ? load(mass + i) : V<X>{}; };
  int i = 0;
  for (; i + 4 * W <= count; i += 4 * W) {
#pragma GCC unroll 4
    for (int j = i; j < i + 4 * W; j += W) store(to + j, scaled(load(from + j), minus_at(j)));
  }
  for (; i + W <= count; i += W) store(to + i, scaled(load(from + i), minus_at(i)));
  if (i == count) return;
  const V<X> minus = kMass ? load_first(mass + i, count - i, X(0)) : V<X>{};
  store_first(to + i, scaled(load_first(from + i, count - i, X(0)), minus), count - i);
}

// mass * weight_k of a block of classes.
template <class X>
void stage_smoothing(const double* weight, double mass, int count, X* to) {
  for (int i = 0; i < count; ++i) to[i] = static_cast<X>(weight ? weight[i] * mass : mass);
}

// The exponentials of a block again, for rows too long to keep: the same bits as the first time.
template <class X>
const X* recompute_block(const Problem& problem, const char* row, int count, const Reference<X>& reference, X* buffer) {
  const X* logits = stage(problem.logits, row, problem.logits.class_stride, count, buffer);
  sum_block<X, true>(logits, count, -1, X(0), reference, buffer);
  return buffer;
}

// Writes the gradient of classes [begin, end). kept: the exponentials of the whole row, or null.
template <class X>
void write_row_gradient(const Problem& problem, const char* row, char* grad, int64_t begin, int64_t end, const X* kept,
                        const BlockReference<X>* references, const Reference<X>& reference, const Scale& scale) {
  X buffer[kBlock<X>], mass[kBlock<X>];
  const bool smooths = has_mass(problem);
  if (smooths && !problem.weight) stage_smoothing<X>(nullptr, scale.mass, kBlock<X>, mass);
  const int64_t stride = problem.grad.class_stride;
  const bool direct = is_native<X>(problem.grad, grad, stride);
  for (int64_t at = begin; at < end; at += kBlock<X>, ++references) {
    const int count = static_cast<int>(end - at < kBlock<X> ? end - at : kBlock<X>);
    Scale share = scale;
    share.factor *= references->empty ? 0 : ratio(references->reference, reference);
    const X* from =
        kept ? kept + at
             : recompute_block(problem, row + at * problem.logits.class_stride, count, references->reference, buffer);
    char* const to = grad + at * stride;
    X* const scaled = direct ? reinterpret_cast<X*>(to) : buffer;
    if (smooths && problem.weight) stage_smoothing(problem.weight + at, scale.mass, count, mass);
    if (smooths) {
      scale_block<X, true>(from, count, share, mass, scaled);
    } else {
      scale_block<X, false>(from, count, share, nullptr, scaled);
    }
    if (!direct) unstage(problem.grad, to, stride, count, scaled);
  }
}

// Zeros in every class of a row, for ignored rows.
inline void write_zero_gradient(const Problem& problem, char* grad) {
  if (problem.grad.class_stride == size_of(problem.grad.type)) {
    __builtin_memset(grad, 0, static_cast<size_t>(problem.classes * problem.grad.class_stride));
    return;
  }
  for (int64_t k = 0; k < problem.classes; ++k) set_element(problem.grad, grad + k * problem.grad.class_stride, 0);
}

}  // namespace
}  // namespace crossent
