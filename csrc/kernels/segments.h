// One long row in segments that several threads may take.
#pragma once

#include "keep.h"
#include "record.h"

namespace crossent {
namespace {

// In memory that has room behind it for the sums of each segment and the references of each block.
template <class Path>
struct SegmentedRow {
  using X = typename Path::Number;
  RowGroup group;
  Sums<X> fresh, sums;
  X* keep = nullptr;

  // Reads what the segments need to know before any of them is overwritten.
  SegmentedRow(const Problem& problem, int64_t row) : group(common_group(problem)) {
    start_group(problem, row, 1, group);
    Path::start(problem, group, 0, fresh);
    keep = keep_for<X>(problem, group.grad[0], nullptr);
  }

  static size_t bytes(const Problem& problem) {
    const size_t total = sizeof(SegmentedRow) + static_cast<size_t>(segments_of(problem)) * sizeof(Sums<X>) +
                         static_cast<size_t>(blocks_of<X>(problem)) * sizeof(BlockReference<X>);
    return (total + 63) / 64 * 64;
  }

  void sum(const Problem& problem, int64_t segment) {
    if (is_skipped(problem)) return;
    Sums<X> next = fresh;
    Path::sum(problem, group, 0, begin_of(segment), end_of(problem, segment), keep, references(problem, segment), next);
    segments()[segment] = next;
  }

  double finish(const Problem& problem, int64_t row) {
    if (!is_skipped(problem)) {
      sums = segments()[0];
      for (int64_t s = 1; s < segments_of(problem); ++s) Path::join(problem, segments()[s], sums);
      group.take(0, sums);
      Path::take(problem, group, 0, sums);
    }
    Path::finish(problem, group);
    LossSum loss;
    record_group(problem, group, row, &sums.anchor, loss);
    return loss.value();
  }

  void write(const Problem& problem, int64_t segment) {
    if (!group.ignored(0)) {
      Path::write(problem, group, 0, begin_of(segment), end_of(problem, segment), keep, references(problem, segment),
                  sums);
    } else if (segment == 0) {
      write_zero_gradient(problem, group.grad[0]);
    }
  }

 private:
  bool is_skipped(const Problem& problem) const { return group.ignored(0) && problem.output != Output::scores; }
  Sums<X>* segments() { return reinterpret_cast<Sums<X>*>(this + 1); }
  BlockReference<X>* references(const Problem& problem, int64_t segment) {
    return reinterpret_cast<BlockReference<X>*>(segments() + segments_of(problem)) + segment * kBlocksPerSegment<X>;
  }
};

}  // namespace
}  // namespace crossent
