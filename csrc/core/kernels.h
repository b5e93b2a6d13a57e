// What is compiled once for each instruction set.
#pragma once

#include <cstddef>

#include "crossent.h"

namespace crossent {

// One kind of row. Work is for one thread; several may share a problem.
struct RowKernels {
  double nanoseconds;  // for a class of a row, about
  // Rows [begin, end) from start to end; returns the sum of their losses. scratch: scratch_bytes of memory.
  double (*run_rows)(const Problem&, int64_t begin, int64_t end, void* scratch);
  size_t (*scratch_bytes)(const Problem&);
  // One long row in segments that several threads may take. memory: row_bytes for the row.
  size_t (*row_bytes)(const Problem&);
  void (*start_row)(const Problem&, int64_t row, void* memory);
  void (*sum_segment)(const Problem&, int64_t segment, void* memory);
  double (*finish_row)(const Problem&, int64_t row, void* memory);
  void (*write_segment)(const Problem&, int64_t segment, void* memory);
};

struct Kernels {
  const RowKernels& (*rows_for)(const Problem&);  // the kind of row that a problem needs
  // What the index targets of rows [begin, end) mean, added to what is known of the rows before.
  void (*judge_rows)(const Problem&, int64_t begin, int64_t end, Judgement* judgement);
};

constexpr int64_t kSegment = 32768;  // classes in a segment

inline int64_t segments_of(const Problem& problem) { return (problem.classes + kSegment - 1) / kSegment; }

struct Standings;  // kernels/standings.h

// CMakeLists.txt lists them: what each is called, whether this machine can run it, what was compiled for it.
struct InstructionSet {
  const char* name;
  bool runs_here;
  const Kernels& kernels;
  const Standings& standings;
};

const InstructionSet& instruction_set();  // the one in use

}  // namespace crossent
