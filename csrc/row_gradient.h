// The second pass over a row of plain logits: the kept exponentials, rescaled, are the gradient.
//   dl/du_k = exp(u_k) * factor;  the target's own element, where p - 1 would cancel, comes from the sum of the others.
#pragma once

#include "row_loss.h"

namespace crossent {
namespace {

// to = from * factor / 2^kBias, each rounded once: the factor is held as a head and a tail. from may be to.
template <class X>
void scale_block(const X* from, int count, double factor, X* to) {
  constexpr int W = kLanes<X>;
  using Table = ExpTable<X>;
  if (!is_ordinary<X>(factor)) {
    for (int i = 0; i < count; ++i) to[i] = scale_slowly(from[i], factor);
    return;
  }
  const X head_of = static_cast<X>(factor * Table::kUnbias);
  const V<X> head = broadcast(head_of);
  const V<X> tail = broadcast(static_cast<X>(factor * Table::kUnbias - static_cast<double>(head_of)));
  const auto scaled = [&](V<X> value) __attribute__((always_inline)) {
    if constexpr (sizeof(X) == 8) return value * head;
    return fma<X>(value, head, value * tail);
  };
  int i = 0;
  for (; i + 4 * W <= count; i += 4 * W) {
#pragma GCC unroll 4
    for (int j = 0; j < 4 * W; j += W) store(to + i + j, scaled(load(from + i + j)));
  }
  for (; i + W <= count; i += W) store(to + i, scaled(load(from + i)));
  if (i < count) store_first(to + i, scaled(load_first(from + i, count - i, X(0))), count - i);
}

// The exponentials of a block again, for rows too long to keep: the same bits as the first time.
template <class X>
const X* recompute_block(const Problem& problem, const char* row, int count, const Reference<X>& reference, X* buffer) {
  const X* logits = stage(problem.logits, row, problem.logits.class_stride, count, buffer);
  sum_block<X, true>(logits, count, -1, reference, buffer);
  return buffer;
}

// Writes the gradient of classes [begin, end). kept: the exponentials of the whole row, or null.
template <class X>
void write_row_gradient(const Problem& problem, const char* row, char* grad, int64_t begin, int64_t end, const X* kept,
                        const BlockReference<X>* references, const Reference<X>& reference, double factor) {
  X buffer[kBlock<X>];
  const int64_t stride = problem.grad.class_stride;
  const bool direct = is_plain<X>(problem.grad, grad, stride);
  for (int64_t at = begin; at < end; at += kBlock<X>, ++references) {
    const int count = static_cast<int>(end - at < kBlock<X> ? end - at : kBlock<X>);
    const double share = references->empty ? factor * 0 : factor * ratio(references->reference, reference);
    const X* from =
        kept ? kept + at
             : recompute_block(problem, row + at * problem.logits.class_stride, count, references->reference, buffer);
    char* const to = grad + at * stride;
    X* const scaled = direct ? reinterpret_cast<X*>(to) : buffer;
    scale_block(from, count, share, scaled);
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
