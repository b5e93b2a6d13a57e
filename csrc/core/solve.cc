// What targets mean, and the problem they belong to: independent pieces, handed out to threads, whose results are added
// in an order of their own.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "float_mode.h"
#include "kernels.h"

namespace crossent {
namespace {

// Pieces of work, and the threads that are worth waking for them.
class Pieces {
 public:
  // nanoseconds: about how long a piece takes.
  Pieces(ParallelFor parallel_for, int64_t count, double nanoseconds) : parallel_for_(parallel_for), count_(count) {
    if (count <= 1 || static_cast<double>(count) * nanoseconds < parallel_for.worthwhile) return;
    workers_ = std::min(parallel_for.most_workers(), count);
  }

  int64_t workers() const { return workers_; }

  // Calls body(worker, piece) for each.
  template <class Body>
  void run(Body body) const {
    if (workers_ == 1) {
      for (int64_t piece = 0; piece < count_; ++piece) body(0, piece);
      return;
    }
    const auto in_our_mode = [](void* context, int64_t worker, int64_t piece) {
      const FloatMode mode;
      (*static_cast<Body*>(context))(worker, piece);
    };
    parallel_for_.run(count_, workers_, in_our_mode, &body);
  }

 private:
  ParallelFor parallel_for_;
  int64_t count_, workers_ = 1;
};

// About how long one thread takes for as many rows.
double nanoseconds_of(const RowKernels& kernels, const Problem& problem, int64_t rows) {
  constexpr double kRow = 5;
  return static_cast<double>(rows) * (kRow + kernels.nanoseconds * static_cast<double>(problem.classes));
}

// Pairwise, over a fixed tree: the same bits however the pieces were computed.
double tree_sum(const double* values, int64_t count) {
  if (count == 0) return 0;
  if (count == 1) return values[0];
  const int64_t half = count / 2;
  return tree_sum(values, half) + tree_sum(values + half, count - half);
}

// Rows in a piece: it depends on C alone, and so does the order in which losses are added.
int64_t rows_in_piece(const Problem& problem) {
  constexpr int64_t kElements = 65536, kMostRows = 2048, kStep = 16;
  const int64_t rows = kElements / problem.classes;
  if (rows <= 1) return 1;
  if (rows < kStep) return rows;
  return (rows < kMostRows ? rows : kMostRows) / kStep * kStep;
}

// Blocks of working memory, taken before anything is written: a call that finds too little has changed nothing.
class Scratch {
 public:
  Scratch(int64_t blocks, size_t bytes)
      : stride_((bytes + kAlignment - 1) / kAlignment * kAlignment),
        memory_(new char[static_cast<size_t>(blocks) * stride_ + kAlignment]) {
    void* begin = memory_.get();
    size_t room = kAlignment;
    begin_ = static_cast<char*>(std::align(kAlignment, 1, begin, room));
  }

  char* operator[](int64_t block) const { return begin_ + static_cast<size_t>(block) * stride_; }

 private:
  static constexpr size_t kAlignment = 64;
  size_t stride_;
  std::unique_ptr<char[]> memory_;
  char* begin_;
};

double run_pieces(const RowKernels& kernels, const Problem& problem, ParallelFor parallel_for) {
  const int64_t step = rows_in_piece(problem);
  const int64_t count = (problem.rows.count + step - 1) / step;
  const Pieces pieces(parallel_for, count, nanoseconds_of(kernels, problem, step));
  const Scratch scratch(pieces.workers(), kernels.scratch_bytes(problem));
  std::vector<double> sums(static_cast<size_t>(count));
  pieces.run([&](int64_t worker, int64_t piece) {
    const int64_t first = piece * step;
    const int64_t last = std::min(first + step, problem.rows.count);
    sums[static_cast<size_t>(piece)] = kernels.run_rows(problem, first, last, scratch[worker]);
  });
  return tree_sum(sums.data(), count);
}

// Few long rows: every segment of every row is a piece, once for the sums and once for the gradient.
double run_segments(const RowKernels& kernels, const Problem& problem, ParallelFor parallel_for) {
  const int64_t segments = segments_of(problem), rows = problem.rows.count;
  const double nanoseconds = nanoseconds_of(kernels, problem, 1) / static_cast<double>(segments);
  const Pieces pieces(parallel_for, rows * segments, nanoseconds);
  const Scratch states(rows, kernels.row_bytes(problem));
  std::vector<double> sums(static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) kernels.start_row(problem, row, states[row]);
  pieces.run([&](int64_t, int64_t i) { kernels.sum_segment(problem, i % segments, states[i / segments]); });
  for (int64_t row = 0; row < rows; ++row) {
    sums[static_cast<size_t>(row)] = kernels.finish_row(problem, row, states[row]);
  }
  if (problem.grad) {
    pieces.run([&](int64_t, int64_t i) { kernels.write_segment(problem, i % segments, states[i / segments]); });
  }
  return tree_sum(sums.data(), rows);
}

// Rounds once, in the core's own floating-point environment.
void write_total(const Array& total, double value) {
  if (total.type == Type::float32) {
    const float rounded = static_cast<float>(value);
    std::memcpy(total.data, &rounded, sizeof(rounded));
  } else {
    std::memcpy(total.data, &value, sizeof(value));
  }
}

double sum_of_rows(const Problem& problem, ParallelFor parallel_for) {
  constexpr int64_t kFewRows = 16;
  const RowKernels& kernels = instruction_set().kernels.rows_for(problem);
  const bool few_long_rows = problem.rows.count < kFewRows && segments_of(problem) > 2;
  return few_long_rows ? run_segments(kernels, problem, parallel_for) : run_pieces(kernels, problem, parallel_for);
}

// What is known of all rows from what is known of parts of them; pairwise, as tree_sum.
Judgement joined(const Judgement* parts, int64_t count) {
  if (count == 0) return {};
  if (count == 1) return parts[0];
  Judgement whole = joined(parts, count / 2);
  const Judgement rest = joined(parts + count / 2, count - count / 2);
  if (whole.bad_row < 0) whole.bad_row = rest.bad_row;
  whole.kept += rest.kept;
  whole.weight += rest.weight;
  return whole;
}

Judgement judge_indices(const Problem& problem, ParallelFor parallel_for) {
  constexpr int64_t kStep = 8192;
  constexpr double kNanoseconds = 1200;  // for as many targets
  const FloatMode mode;
  const Kernels& kernels = instruction_set().kernels;
  const int64_t rows = problem.rows.count, count = (rows + kStep - 1) / kStep;
  const Pieces pieces(parallel_for, count, kNanoseconds);
  std::vector<Judgement> parts(static_cast<size_t>(count));
  pieces.run([&](int64_t, int64_t i) {
    const int64_t last = std::min((i + 1) * kStep, rows);
    kernels.judge_rows(problem, i * kStep, last, &parts[static_cast<size_t>(i)]);
  });
  return joined(parts.data(), count);
}

// A gradient of zeros: that of rows which are all ignored.
void clear_gradient(Problem problem, ParallelFor parallel_for) {
  static int8_t ignored = 0;
  static const int64_t nowhere[kMostDimensions] = {};
  problem.form = Targets::index;
  problem.targets = {reinterpret_cast<char*>(&ignored), nowhere, 0, Type::int8, false};
  problem.options.ignores = true;
  problem.options.ignore_index = ignored;
  problem.options.ignore_is_unsigned = false;
  sum_of_rows(problem, parallel_for);
}

}  // namespace

Judgement judge(const Problem& problem, ParallelFor parallel_for) {
  Judgement judgement;
  if (problem.form == Targets::index) {
    judgement = judge_indices(problem, parallel_for);
  } else {
    judgement.kept = problem.rows.count;
  }
  const Options& options = problem.options;
  const bool weighted = problem.form == Targets::index && problem.weight;
  const double counts = weighted ? judgement.weight : static_cast<double>(judgement.kept);
  if (options.reduction == Reduction::mean) judgement.divisor = options.normalizer != 0 ? options.normalizer : counts;
  return judgement;
}

Outcome solve(Problem problem, double divisor, ParallelFor parallel_for) {
  const FloatMode mode;
  const WhenEmpty when_empty = problem.options.when_empty;
  Outcome outcome;
  outcome.empty = divisor == 0;
  if (outcome.empty && when_empty == WhenEmpty::raise) return outcome;
  if (outcome.empty) {
    const double loss = when_empty == WhenEmpty::zero ? 0 : std::numeric_limits<double>::quiet_NaN();
    if (problem.grad) clear_gradient(problem, parallel_for);
    if (problem.total) write_total(problem.total, loss);
    return outcome;
  }
  problem.weight_sum = static_cast<double>(problem.classes);
  if (problem.weight) problem.weight_sum = tree_sum(problem.weight, problem.classes);
  problem.scale /= divisor;
  outcome.sum = sum_of_rows(problem, parallel_for);
  if (problem.total) write_total(problem.total, outcome.sum / divisor);
  return outcome;
}

Outcome judge_and_solve(const Problem& problem, ParallelFor parallel_for) {
  const Judgement judgement = judge(problem, parallel_for);
  if (judgement.bad_row < 0) return solve(problem, judgement.divisor, parallel_for);
  Outcome outcome;
  outcome.bad_row = judgement.bad_row;
  return outcome;
}

}  // namespace crossent
