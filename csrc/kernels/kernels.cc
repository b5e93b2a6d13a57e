// The loops over rows, compiled once for each instruction set, whose namespace is CROSSENT_SET.
#include "core/kernels.h"

#include <new>

#include "column.h"
#include "core/float_mode.h"
#include "general.h"
#include "group.h"
#include "panel.h"

namespace crossent {
namespace {

bool computes_in_double(const Problem& problem) { return problem.logits.type == Type::float64; }

// Scores of which only lse is wanted.
bool is_lse_alone(const Problem& problem) {
  return problem.output == Output::scores && problem.form == Targets::none && !problem.loss && !problem.entropy &&
         !problem.argmax;
}

bool is_general(const Problem& problem) {
  const bool in_double = computes_in_double(problem);
  const bool smooth = problem.form == Targets::index && !in_double;
  const bool plain_output =
      problem.output == Output::loss || problem.output == Output::softmax || (is_lse_alone(problem) && !in_double);
  return (has_mass(problem) && !smooth) || problem.options.softcap != 0 || problem.options.logit_scale != 1 ||
         !plain_output;
}

// Writes the target's element of a row's gradient.
CROSSENT_INLINE void write_own(const Problem& problem, const RowGroup& group, int row) {
  set_element(problem.grad, group.grad[row] + group.target[row] * problem.grad.class_stride,
              group.grad_loss[row] * group.grad_anchor[row]);
}

// 1. The two kinds of row: each sums a segment, finishes a group and writes a segment of its gradient.

template <class X>
struct PlainRows {
  using Number = X;

  static void start(const Problem& problem, const RowGroup& group, int row, Sums<X>& sums) {
    const int64_t target = group.target[row];
    if (target < 0) return;
    const double logit = element(problem.logits, group.logits[row] + target * problem.logits.class_stride);
    sums.anchor_logit = logit;
    if (logit > -kInfinity<double> && logit < kInfinity<double>) sums.anchor = target;
  }
  static void sum(const Problem& problem, const RowGroup& group, int row, int64_t begin, int64_t end, X* keep,
                  BlockReference<X>* references, Sums<X>& sums) {
    sum_row<X>(problem, group.logits[row], begin, end, keep, references, sums);
  }
  static void join(const Problem&, const Sums<X>& next, Sums<X>& sums) { merge(next, sums); }
  static void take(const Problem&, RowGroup& group, int row, const Sums<X>& sums) {
    group.linear[row] = sums.linear.value();
  }
  static void finish(const Problem& problem, RowGroup& group) {
    exact_terms_of_group<X, false>(group);
    finish_group<X>(problem, group, has_mass(problem));
  }
  static void write(const Problem& problem, const RowGroup& group, int row, int64_t begin, int64_t end, const X* keep,
                    const BlockReference<X>* references, const Sums<X>& sums) {
    const Scale scale{group.factor[row], group.grad_loss[row] * even_mass(problem)};
    write_row_gradient<X>(problem, group.logits[row], group.grad[row], begin, end, keep, references, sums.reference,
                          scale);
    if (group.target[row] >= begin && group.target[row] < end) write_own(problem, group, row);
  }
};

struct GeneralRows {
  using Number = double;

  static void start(const Problem& problem, RowGroup& group, int row, Sums<double>&) {
    const int64_t target = group.target[row];
    if (target < 0) return;
    group.target_logit[row] = target_logit(problem, group.logits[row], target, &group.target_tail[row]);
  }
  static void sum(const Problem& problem, const RowGroup& group, int row, int64_t begin, int64_t end, double*,
                  BlockReference<double>* references, Sums<double>& sums) {
    sum_general_row(problem, GeneralRow(group, row), begin, end, references, sums);
  }
  static void join(const Problem&, const Sums<double>& next, Sums<double>& sums) { merge_general(next, sums); }
  // The one-hot part of an index target joins the other masses.
  static void take(const Problem&, RowGroup& group, int row, const Sums<double>& sums) {
    group.mass[row] = sums.mass.value();
    group.anchor_mass[row] = sums.anchor_mass;
    group.linear[row] = sums.linear.value();
    const double onehot = group.target_mass[row];
    if (group.target[row] < 0 || onehot == 0) return;
    if (group.target[row] == sums.anchor) {
      group.anchor_mass[row] += onehot;
    } else {
      group.linear[row] -=
          onehot * ((sums.anchor_logit - group.target_logit[row]) + (sums.anchor_tail - group.target_tail[row]));
    }
  }
  static void finish(const Problem& problem, RowGroup& group) {
    exact_terms_of_group<double, true>(group);
    finish_group<double>(problem, group, true);
  }
  static void write(const Problem& problem, const RowGroup& group, int row, int64_t begin, int64_t end, const double*,
                    const BlockReference<double>* references, const Sums<double>& sums) {
    const Finished finished{group, row, sums};
    const GeneralRow operands(group, row);
    char* const grad = group.grad[row];
    if (problem.output == Output::product) {
      write_product(problem, operands, grad, begin, end, references, finished);
    } else if (problem.output == Output::log_softmax) {
      write_log_softmax(problem, operands, grad, begin, end, finished);
    } else {
      write_general_gradient(problem, operands, grad, begin, end, references, finished);
    }
  }
};

// 2. Results that are one number a row.

struct Largest {
  int64_t index = 0;
  double value = -kInfinity<double>;
};

// The first maximum of a row's logits as they are scaled, a nan before any number: for rows with an infinity or a nan,
// and for capped logits, where many may reach the cap.
Largest largest_of_row(const Problem& problem, const char* row) {
  Largest best;
  for (int64_t k = 0; k < problem.classes; ++k) {
    const double value = problem.options.logit_scale * element(problem.logits, row + k * problem.logits.class_stride);
    if (value > best.value || value != value) best = {k, value};
    if (value != value) break;
  }
  return best;
}

// Writes one number for every row of a group.
void put(const Problem& problem, const RowRun& run, const Array& array, int64_t first, int count,
         const double* values) {
  if (!array) return;
  char* at[kGroup];
  place(problem, run, array, first, count, at);
  for (int i = 0; i < count; ++i) set_element(array, at[i], values[i]);
}

// nll, lse, entropy and argmax; the anchor is the largest class.
void record_scores(const Problem& problem, const RowGroup& group, int64_t first, const int64_t* anchors) {
  double nll[kGroup], lse[kGroup], entropy[kGroup], argmax[kGroup];
  for (int r = 0; r < group.rows; ++r) {
    const double core = group.core[r];
    const bool regular = core == core && anchors[r] >= 0;
    Largest largest{anchors[r], group.anchor_logit[r]};
    if (!regular || problem.options.softcap != 0) largest = largest_of_row(problem, group.logits[r]);
    const double behind =
        (group.anchor_logit[r] - group.target_logit[r]) + (group.anchor_tail[r] - group.target_tail[r]);
    nll[r] = group.target[r] == anchors[r] ? core : behind + core;
    nll[r] = group.ignored(r) ? 0 : regular ? nll[r] : kNan<double>;
    lse[r] = regular ? group.anchor_logit[r] + (group.anchor_tail[r] + core) : largest.value;
    entropy[r] = regular ? core - group.spread[r] / group.sum_all[r] : kNan<double>;
    argmax[r] = static_cast<double>(largest.index);
  }
  const RowRun run(problem.rows, first, group.rows);
  put(problem, run, problem.loss, first, group.rows, nll);
  put(problem, run, problem.lse, first, group.rows, lse);
  put(problem, run, problem.entropy, first, group.rows, entropy);
  put(problem, run, problem.argmax, first, group.rows, argmax);
}

void record_lse(const Problem& problem, const RowGroup& group, int64_t first) {
  double lse[kGroup];
  for (int r = 0; r < group.rows; ++r) {
    const bool regular = group.lse[r] == group.lse[r];
    lse[r] = regular ? group.lse[r] : largest_of_row(problem, group.logits[r]).value;
  }
  put(problem, RowRun(problem.rows, first, group.rows), problem.lse, first, group.rows, lse);
}

// Records what is one number a row, and adds the losses to `sum`.
void record_group(const Problem& problem, RowGroup& group, int64_t first, const int64_t* anchors, LossSum& sum) {
  if (problem.output == Output::scores) {
    if (is_general(problem)) return record_scores(problem, group, first, anchors);
    return record_lse(problem, group, first);
  }
  for (int r = 0; r < group.rows; ++r) group.loss[r] = group.ignored(r) ? 0 : group.loss[r];
  if (problem.loss) {
    put(problem, RowRun(problem.rows, first, group.rows), problem.loss, first, group.rows, group.loss);
  }
  sum.add(group.loss, group.rows);
}

// 3. Rows from start to end, a group at a time.

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
      scale_tile(problem, group, tiles[i]);
      store_tile(problem, group, tiles[i]);
    }
    for (int r = 0; problem.grad && r < group.rows; ++r) {
      if (group.target[r] >= 0) write_own(problem, group, r);
    }
  }
  return loss.value();
}

template <class X>
constexpr int64_t kBlocksPerSegment = kSegment / kBlock<X>;
template <class X>
int64_t blocks_of(const Problem& problem) {
  return (problem.classes + kBlock<X> - 1) / kBlock<X>;
}
constexpr int64_t kMostKept = 65536;  // classes whose exponentials are kept beside the output

// Where a row's exponentials are kept: in the gradient itself, beside it, or not at all.
template <class X>
X* keep_for(const Problem& problem, char* grad, X* beside) {
  if (!problem.grad || is_general(problem)) return nullptr;
  if (is_plain<X>(problem.grad, grad, problem.grad.class_stride)) return reinterpret_cast<X*>(grad);
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
  bool aligned = is_plain<X>(grad, grad.data, grad.class_stride);
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

template <class Path>
double run_long_rows(const Problem& problem, int64_t begin, int64_t end, void* scratch) {
  using X = typename Path::Number;
  const int together = rows_together<X>(problem);
  const int64_t blocks = blocks_of<X>(problem), segments = segments_of(problem);
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
      Sums<X> fresh;
      Path::start(here, group, r, fresh);
      for (int64_t s = 0; s < segments; ++s) {
        Sums<X> next = fresh;
        const int64_t from = s * kSegment;
        const int64_t to = from + kSegment < here.classes ? from + kSegment : here.classes;
        Path::sum(here, group, r, from, to, keeps[r], references + r * blocks + s * kBlocksPerSegment<X>, next);
        if (s == 0) {
          sums[r] = next;
        } else {
          Path::join(here, next, sums[r]);
        }
      }
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

// 4. One row in segments.

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

// 5. The table: which kind of row a problem needs.

template <class Use>
auto with_path(const Problem& problem, Use use) {
  if (is_general(problem)) return use(GeneralRows{});
  if (computes_in_double(problem)) return use(PlainRows<double>{});
  return use(PlainRows<float>{});
}

double run_rows(const Problem& problem, int64_t begin, int64_t end, void* scratch) {
  const FloatMode mode;
  if (!is_general(problem) && problem.classes <= kShortRow) {
    return computes_in_double(problem) ? run_columns<double>(problem, begin, end)
                                       : run_columns<float>(problem, begin, end);
  }
  return with_path(problem, [&](auto path) { return run_long_rows<decltype(path)>(problem, begin, end, scratch); });
}

size_t scratch_bytes(const Problem& problem) {
  return with_path(problem, [&](auto path) {
    using X = typename decltype(path)::Number;
    return panel_offset<X>(problem) + panel_bytes(problem);
  });
}

double nanoseconds(const Problem& problem, int64_t rows) {
  constexpr double kRow = 5, kElement = 0.2;
  const double harder = is_general(problem) ? 8 : computes_in_double(problem) ? 2 : 1;
  return static_cast<double>(rows) * (kRow + kElement * harder * static_cast<double>(problem.classes));
}

void start_row(const Problem& problem, int64_t row, void* state) {
  with_path(problem, [&](auto path) { start_one_row<decltype(path)>(problem, row, state); });
}

void sum_segment(const Problem& problem, int64_t segment, void* state) {
  const FloatMode mode;
  with_path(problem, [&](auto path) { sum_one_segment<decltype(path)>(problem, segment, state); });
}

double finish_row(const Problem& problem, int64_t row, void* state) {
  const FloatMode mode;
  return with_path(problem, [&](auto path) { return finish_one_row<decltype(path)>(problem, row, state); });
}

void write_segment(const Problem& problem, int64_t segment, void* state) {
  const FloatMode mode;
  with_path(problem, [&](auto path) { write_one_segment<decltype(path)>(problem, segment, state); });
}

size_t row_state_bytes(const Problem& problem) {
  return with_path(problem, [&](auto path) { return RowState<decltype(path)>::bytes(problem); });
}

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
      if (targets[i] >= 0) judgement->weight += problem.weight[targets[i]];
    }
    if (problem.verdict) write_verdicts(problem, run, targets, count);
    first += count;
  }
}

}  // namespace

namespace CROSSENT_SET {
extern const Kernels kernels;
const Kernels kernels = {
    run_rows,   scratch_bytes, nanoseconds,     start_row,  sum_segment,
    finish_row, write_segment, row_state_bytes, judge_rows,
};
}  // namespace CROSSENT_SET

}  // namespace crossent
