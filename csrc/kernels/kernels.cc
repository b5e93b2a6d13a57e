// The loops over rows, compiled once for each instruction set, whose namespace is CROSSENT_SET.
#include "core/kernels.h"

#include <new>
#include <type_traits>

#include "column.h"
#include "segments.h"

namespace crossent {
namespace {

// 1. Short rows from start to end, a group at a time.

// The rows of the group that starts with `row`: where the gradient's lie side by side, only up to a line of cache, so
// that no later group writes to a part of one.
int rows_of_group(const Problem& problem, int64_t row) {
  if (!problem.grad) return kGroup;
  const RowRun run(problem.rows, row, 1);
  const int size = size_of(problem.grad.type);
  const int past = static_cast<int>(reinterpret_cast<uintptr_t>(run.first(problem.grad)) % 64);
  return run.step(problem.grad) == size && past != 0 && past % size == 0 ? (64 - past) / size : kGroup;
}

template <class X>
double run_columns(const Problem& problem, int64_t begin, int64_t end) {
  constexpr int kTiles = kGroup / kTileRows<X>;
  RowGroup group = common_group(problem);
  Tile<X> tiles[kTiles];
  LossSum loss;
  for (int64_t first = begin; first < end; first += group.rows) {
    const int64_t rows = rows_of_group(problem, first);
    start_group(problem, first, static_cast<int>(end - first < rows ? end - first : rows), group);
    int used = 0;
    for (int at = 0; at < group.rows; at += kTileRows<X>, ++used) {
      tiles[used].first = at;
      tiles[used].rows = group.rows - at < kTileRows<X> ? group.rows - at : kTileRows<X>;
      const auto seen = load_tile(problem, group, tiles[used]);
      sum_tile(problem, group, seen, tiles[used]);
    }
    finish_group<X>(problem, group, has_mass(problem));
    record_group(problem, group, first, nullptr, loss);
    for (int i = 0; problem.grad && i < used; ++i) prefetch_gradient(problem, group, tiles[i]);
    for (int i = 0; problem.grad && i < used; ++i) {
      if (is_ordinary_tile(group, tiles[i])) {
        scale_tile(problem, group, tiles[i]);
      } else {
        scale_odd_tile(problem, group, tiles[i]);
      }
      store_tile(problem, group, tiles[i]);
    }
    for (int r = 0; problem.grad && r < group.rows; ++r) {
      if (group.target[r] >= 0) write_own(problem, group, r);
    }
  }
  return loss.value();
}

// 2. Long rows from start to end, a group at a time.

// Sums one row, segment by segment: in the order of a row whose segments several threads take.
template <class Path, class X = typename Path::Number>
CROSSENT_INLINE void sum_long_row(const Problem& problem, RowGroup& group, int row, X* keep,
                                  BlockReference<X>* references, Sums<X>& sums) {
  Sums<X> fresh;
  Path::start(problem, group, row, fresh);
  for (int64_t s = 0; s < segments_of(problem); ++s) {
    Sums<X> next = fresh;
    Path::sum(problem, group, row, begin_of(s), end_of(problem, s), keep, references + s * kBlocksPerSegment<X>, next);
    if (s == 0) {
      sums = next;
    } else {
      Path::join(problem, next, sums);
    }
  }
}

template <class Path>
double run_long_rows(const Problem& problem, int64_t begin, int64_t end, void* scratch) {
  using X = typename Path::Number;
  const int together = rows_together<X>(problem);
  const int64_t blocks = blocks_of<X>(problem);
  auto* const references = static_cast<BlockReference<X>*>(scratch);
  auto* const beside = reinterpret_cast<X*>(references + together * blocks);
  Panels panels(problem, static_cast<char*>(scratch) + panel_offset<X>(problem));
  RowGroup group = common_group(problem);
  LossSum loss;
  for (int64_t first = begin; first < end; first += together) {
    start_group(problem, first, static_cast<int>(end - first < together ? end - first : together), group);
    const Problem& here = panels.begin(group);
    Sums<X> sums[kGroup];
    int64_t anchors[kGroup];
    X* keeps[kGroup];
    for (int r = 0; r < group.rows; ++r) {
      keeps[r] = keep_for<X>(here, group.grad[r], beside + r * here.classes);
      if (group.ignored(r) && here.output != Output::scores) continue;
      sum_long_row<Path>(here, group, r, keeps[r], references + r * blocks, sums[r]);
      group.take(r, sums[r]);
      Path::take(here, group, r, sums[r]);
      anchors[r] = sums[r].anchor;
    }
    Path::finish(here, group);
    record_group(here, group, first, anchors, loss);
    for (int r = 0; here.grad && r < group.rows; ++r) {
      if (group.ignored(r)) {
        write_zero_gradient(here, group.grad[r]);
      } else {
        Path::write(here, group, r, 0, here.classes, keeps[r], references + r * blocks, sums[r]);
      }
    }
    panels.end(group);
  }
  return loss.value();
}

// 3. What targets mean.

void write_verdicts(const Problem& problem, const RowRun& run, const int64_t* targets, int count) {
  char* const to = run.first(problem.verdict);
  for (int i = 0; i < count; ++i) {
    const Verdict verdict = targets[i] >= 0 ? Verdict::kept : targets[i] == kIgnored ? Verdict::ignored : Verdict::bad;
    to[i * run.step(problem.verdict)] = static_cast<char>(verdict);
  }
}

void judge_rows(const Problem& problem, int64_t begin, int64_t end, Judgement* judgement) {
  constexpr int kRun = 256;
  int64_t targets[kRun];
  Total weight;
  for (int64_t first = begin; first < end;) {
    int count = static_cast<int>(end - first < kRun ? end - first : kRun);
    const RowRun run(problem.rows, first, count);
    if (!run.even) count = 1;
    read_index_targets(problem, run.first(problem.targets), run.step(problem.targets), count, targets);
    int64_t kept = 0, bad = 0;
    for (int i = 0; i < count; ++i) {
      kept += targets[i] >= 0;
      bad += targets[i] == kBad;
    }
    if (bad != 0 && judgement->bad_row < 0) {
      int i = 0;
      while (targets[i] != kBad) ++i;
      judgement->bad_row = first + i;
      if (!problem.verdict) return;
    }
    judgement->kept += kept;
    for (int i = 0; problem.weight && i < count; ++i) {
      if (targets[i] >= 0) weight.add(problem.weight[targets[i]]);
    }
    if (problem.verdict) write_verdicts(problem, run, targets, count);
    first += count;
  }
  judgement->weight += weight.value();
}

// 4. The tables: which kind of row a problem needs.

template <class Path>
double run_rows(const Problem& problem, int64_t begin, int64_t end, void* scratch) {
  if constexpr (!std::is_same_v<Path, GeneralRows>) {
    if (problem.classes <= kShortRow) return run_columns<typename Path::Number>(problem, begin, end);
  }
  return run_long_rows<Path>(problem, begin, end, scratch);
}

template <class Path>
size_t scratch_bytes(const Problem& problem) {
  return panel_offset<typename Path::Number>(problem) + panel_bytes(problem);
}

template <class Path>
SegmentedRow<Path>& segmented(void* memory) {
  return *static_cast<SegmentedRow<Path>*>(memory);
}

template <class Path>
constexpr RowKernels table(double nanoseconds) {
  return {
      nanoseconds,
      run_rows<Path>,
      scratch_bytes<Path>,
      SegmentedRow<Path>::bytes,
      [](const Problem& problem, int64_t row, void* memory) { new (memory) SegmentedRow<Path>(problem, row); },
      [](const Problem& problem, int64_t segment, void* row) { segmented<Path>(row).sum(problem, segment); },
      [](const Problem& problem, int64_t row, void* memory) { return segmented<Path>(memory).finish(problem, row); },
      [](const Problem& problem, int64_t segment, void* row) { segmented<Path>(row).write(problem, segment); }};
}

const RowKernels& rows_for(const Problem& problem) {
  static constexpr RowKernels floats = table<PlainRows<float>>(0.2), doubles = table<PlainRows<double>>(0.4);
  static constexpr RowKernels general = table<GeneralRows>(1.6);
  if (is_general(problem)) return general;
  return computes_in_double(problem) ? doubles : floats;
}

}  // namespace

namespace CROSSENT_SET {
extern const Kernels kernels;
const Kernels kernels = {rows_for, judge_rows};
}  // namespace CROSSENT_SET

}  // namespace crossent
