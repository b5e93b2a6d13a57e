// One long row in segments that several threads may take.
#pragma once

#include <new>

#include "keep.h"
#include "record.h"

namespace crossent {
namespace {

template <class Path>
struct RowState {
  using X = typename Path::Number;
  RowGroup group{};
  Sums<X> fresh, sums;
  X* keep = nullptr;

  Sums<X>* segments() { return reinterpret_cast<Sums<X>*>(this + 1); }
  BlockReference<X>* references(const Problem& problem) {
    return reinterpret_cast<BlockReference<X>*>(segments() + segments_of(problem));
  }
  static size_t bytes(const Problem& problem) {
    const size_t total = sizeof(RowState) + static_cast<size_t>(segments_of(problem)) * sizeof(Sums<X>) +
                         static_cast<size_t>(blocks_of<X>(problem)) * sizeof(BlockReference<X>);
    return (total + 63) / 64 * 64;
  }
};

// Reads what a row's segments need to know before any of them is overwritten.
template <class Path>
void start_one_row(const Problem& problem, int64_t row, void* memory) {
  using X = typename Path::Number;
  auto& state = *new (memory) RowState<Path>{};
  state.group = common_group(problem);
  start_group(problem, row, 1, state.group);
  Path::start(problem, state.group, 0, state.fresh);
  state.keep = keep_for<X>(problem, state.group.grad[0], nullptr);
}

template <class Path>
bool is_skipped(const Problem& problem, const RowState<Path>& state) {
  return state.group.ignored(0) && problem.output != Output::scores;
}

template <class Path>
void sum_one_segment(const Problem& problem, int64_t segment, void* memory) {
  using X = typename Path::Number;
  auto& state = *static_cast<RowState<Path>*>(memory);
  if (is_skipped(problem, state)) return;
  Sums<X> sums = state.fresh;
  const int64_t from = segment * kSegment;
  const int64_t to = from + kSegment < problem.classes ? from + kSegment : problem.classes;
  Path::sum(problem, state.group, 0, from, to, state.keep, state.references(problem) + segment * kBlocksPerSegment<X>,
            sums);
  state.segments()[segment] = sums;
}

template <class Path>
double finish_one_row(const Problem& problem, int64_t row, void* memory) {
  auto& state = *static_cast<RowState<Path>*>(memory);
  if (!is_skipped(problem, state)) {
    state.sums = state.segments()[0];
    for (int64_t s = 1; s < segments_of(problem); ++s) Path::join(problem, state.segments()[s], state.sums);
    state.group.take(0, state.sums);
    Path::take(problem, state.group, 0, state.sums);
  }
  Path::finish(problem, state.group);
  LossSum loss;
  record_group(problem, state.group, row, &state.sums.anchor, loss);
  return loss.value();
}

template <class Path>
void write_one_segment(const Problem& problem, int64_t segment, void* memory) {
  using X = typename Path::Number;
  auto& state = *static_cast<RowState<Path>*>(memory);
  const int64_t from = segment * kSegment;
  const int64_t to = from + kSegment < problem.classes ? from + kSegment : problem.classes;
  if (state.group.ignored(0)) {
    if (segment == 0) write_zero_gradient(problem, state.group.grad[0]);
    return;
  }
  Path::write(problem, state.group, 0, from, to, state.keep, state.references(problem) + segment * kBlocksPerSegment<X>,
              state.sums);
}

}  // namespace
}  // namespace crossent
