// Where exponentials wait for their row's sum: in the gradient itself, beside it, or nowhere. A thread's working
// memory.
#pragma once

#include "core/kernels.h"
#include "panel.h"
#include "path.h"

namespace crossent {
namespace {

template <class X>
constexpr int64_t kBlocksPerSegment = kSegment / kBlock<X>;
template <class X>
int64_t blocks_of(const Problem& problem) {
  return (problem.classes + kBlock<X> - 1) / kBlock<X>;
}
inline int64_t begin_of(int64_t segment) { return segment * kSegment; }
inline int64_t end_of(const Problem& problem, int64_t segment) {
  const int64_t end = begin_of(segment + 1);
  return end < problem.classes ? end : problem.classes;
}
constexpr int64_t kMostKept = 65536;  // classes whose exponentials are kept beside the output

// Where a row's exponentials are kept: in the gradient itself, beside it, or not at all.
template <class X>
X* keep_for(const Problem& problem, char* grad, X* beside) {
  if (!problem.grad || is_general(problem)) return nullptr;
  if (is_native<X>(problem.grad, grad, problem.grad.class_stride)) return reinterpret_cast<X*>(grad);
  return problem.classes <= kMostKept ? beside : nullptr;
}

// How many rows are summed before their losses are computed side by side: as many as stay in cache.
template <class X>
int rows_together(const Problem& problem) {
  if (takes_panels(problem)) return kPanelRows;
  const int64_t rows = 32768 / (problem.classes * static_cast<int64_t>(sizeof(X)));
  return static_cast<int>(rows < 1 ? 1 : rows > kGroup ? kGroup : rows);
}

// Whether some row's exponentials need room beside the gradient.
template <class X>
bool keeps_beside(const Problem& problem) {
  if (!problem.grad || is_general(problem) || problem.classes > kMostKept) return false;
  const Array& grad = problem.grad;
  bool aligned = is_native<X>(grad, grad.data, grad.class_stride);
  for (int d = 0; d < problem.rows.dimensions; ++d) {
    aligned = aligned && grad.row_strides[d] % static_cast<int64_t>(sizeof(X)) == 0;
  }
  return !aligned;
}

// Where the panel lies in a thread's memory: after the references and the exponentials kept beside the gradient.
template <class X>
size_t panel_offset(const Problem& problem) {
  const size_t together = static_cast<size_t>(rows_together<X>(problem));
  size_t bytes = together * static_cast<size_t>(blocks_of<X>(problem)) * sizeof(BlockReference<X>);
  if (keeps_beside<X>(problem)) bytes += together * static_cast<size_t>(problem.classes) * sizeof(X);
  return (bytes + 63) / 64 * 64;
}

}  // namespace
}  // namespace crossent
