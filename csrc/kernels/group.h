// Groups of rows: where they lie in memory, and what is known of them before any of their classes is read.
#pragma once

#include "logits.h"
#include "row.h"

namespace crossent {
namespace {

// The row's index in every dimension.
inline void locate(const Rows& rows, int64_t row, int64_t* index) {
  for (int d = rows.dimensions - 1; d > 0; --d) {
    index[d] = row % rows.shape[d];
    row /= rows.shape[d];
  }
  index[0] = row;
}

// Calls use(array's first row, bytes between rows) with rows [first, first + count) an even step apart, or false where
// they are not: the caller then goes row by row.
struct RowRun {
  int64_t index[kMostDimensions];
  const Rows& rows;
  bool even;

  RowRun(const Rows& all, int64_t first, int64_t count) : rows(all) {
    if (rows.dimensions == 1) {
      index[0] = first;
      even = true;
      return;
    }
    if (rows.dimensions > 0) locate(rows, first, index);
    even = rows.dimensions == 0 || index[rows.dimensions - 1] + count <= rows.shape[rows.dimensions - 1];
  }

  char* first(const Array& array) const {
    char* at = array.data;
    for (int d = 0; d < rows.dimensions; ++d) at += index[d] * array.row_strides[d];
    return at;
  }

  int64_t step(const Array& array) const { return rows.dimensions ? array.row_strides[rows.dimensions - 1] : 0; }
};

inline char* row_of(const Rows& rows, const Array& array, int64_t row) { return RowRun(rows, row, 1).first(array); }

// The addresses of `count` rows of an array, or null ones where it is absent.
inline void place(const Problem& problem, const RowRun& run, const Array& array, int64_t first, int count, char** to) {
  if (!array) return;
  if (run.even) {
    char* at = run.first(array);
    const int64_t step = run.step(array);
    for (int i = 0; i < count; ++i, at += step) to[i] = at;
  } else {
    for (int i = 0; i < count; ++i) to[i] = row_of(problem.rows, array, first + i);
  }
}

inline double target_logit(const Problem& problem, const char* row, int64_t target, double* tail) {
  LogitBlock block;
  stage_logits(problem, row, target, 1, block);
  *tail = block.tails ? block.tails[0] : 0;
  return block.logits[0];
}

// A group before its first rows: what they have in common.
inline RowGroup common_group(const Problem& problem) {
  RowGroup group{};
  group.indexed = problem.form == Targets::index;
  for (int i = 0; i < kGroup; ++i) {
    group.target[i] = -1;
    group.target_mass[i] = problem.form == Targets::distribution ? 0 : 1 - problem.options.label_smoothing;
    group.mass[i] = even_mass(problem) * problem.weight_sum;
    group.anchor_mass[i] = group.target_mass[i] + even_mass(problem);
    group.grad_loss[i] = problem.scale;
  }
  return group;
}

inline void read_targets(const Problem& problem, const RowRun& run, RowGroup& group) {
  if (run.even) {
    read_index_targets(problem, group.targets[0], run.step(problem.targets), group.rows, group.target);
  } else {
    for (int i = 0; i < group.rows; ++i) read_index_targets(problem, group.targets[i], 0, 1, group.target + i);
  }
  for (int i = 0; problem.weight && i < group.rows; ++i) {
    const double weight = group.target[i] < 0 ? 1 : problem.weight[group.target[i]];
    group.target_mass[i] = (1 - problem.options.label_smoothing) * weight;
    group.anchor_mass[i] = group.target_mass[i] + even_mass(problem) * weight;
  }
}

inline void start_group(const Problem& problem, int64_t first, int count, RowGroup& group) {
  const RowRun run(problem.rows, first, count);
  group.rows = count;
  group.even = run.even;
  place(problem, run, problem.logits, first, count, group.logits);
  place(problem, run, problem.targets, first, count, group.targets);
  place(problem, run, problem.vector, first, count, group.vector);
  place(problem, run, problem.grad, first, count, group.grad);
  if (problem.form == Targets::index) read_targets(problem, run, group);
  if (!problem.grad_loss) return;
  char* grad_loss[kGroup];
  place(problem, run, problem.grad_loss, first, count, grad_loss);
  for (int i = 0; i < count; ++i) group.grad_loss[i] = problem.scale * element(problem.grad_loss, grad_loss[i]);
}

}  // namespace
}  // namespace crossent
