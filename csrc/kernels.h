// The entry points that are compiled once for each instruction set.
#pragma once

#include <cstddef>

#include "crossent.h"

namespace crossent {

struct Kernels {
  const char* name;
  // Rows [begin, end) from start to end; returns the sum of their losses. scratch: scratch_bytes of memory.
  double (*run_rows)(const Problem&, int64_t begin, int64_t end, void* scratch);
  size_t (*scratch_bytes)(const Problem&);
  // About how long one thread takes for as many rows.
  double (*nanoseconds)(const Problem&, int64_t rows);
  // One long row in segments that several threads may take. state: row_state_bytes of memory for the row.
  void (*start_row)(const Problem&, int64_t row, void* state);
  void (*sum_segment)(const Problem&, int64_t segment, void* state);
  double (*finish_row)(const Problem&, int64_t row, void* state);
  void (*write_segment)(const Problem&, int64_t segment, void* state);
  size_t (*row_state_bytes)(const Problem&);
  // What the targets of rows [begin, end) say.
  void (*summarize)(const Problem&, int64_t begin, int64_t end, TargetSummary* summary);
};

constexpr int64_t kSegment = 32768;  // classes in a segment

inline int64_t segments_of(const Problem& problem) { return (problem.classes + kSegment - 1) / kSegment; }

}  // namespace crossent
