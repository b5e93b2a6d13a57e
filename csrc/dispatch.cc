// Plans a problem as independent pieces, hands them out, and adds their results in an order of their own.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "float_mode.h"
#include "kernels.h"

namespace crossent {

#if defined(CROSSENT_X86)
extern const Kernels kernels_x86_64_v4, kernels_x86_64_v3;
#elif defined(CROSSENT_NEON)
extern const Kernels kernels_neon;
#endif
extern const Kernels kernels_baseline;

namespace {

// The kernels that this machine can run, best first.
const std::vector<const Kernels*>& usable_kernels() {
  static const std::vector<const Kernels*> usable = [] {
    std::vector<const Kernels*> list;
#if defined(CROSSENT_X86)
    __builtin_cpu_init();
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("f16c");
    const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    if (v4) list.push_back(&kernels_x86_64_v4);
    if (v3) list.push_back(&kernels_x86_64_v3);
#elif defined(CROSSENT_NEON)
    list.push_back(&kernels_neon);
#endif
    list.push_back(&kernels_baseline);
    return list;
  }();
  return usable;
}

const Kernels* find(const char* name) {
  for (const Kernels* kernels : usable_kernels()) {
    if (std::strcmp(kernels->name, name) == 0) return kernels;
  }
  return nullptr;
}

std::atomic<const Kernels*> chosen{nullptr};

const Kernels& kernels() {
  if (const Kernels* const known = chosen.load(std::memory_order_relaxed)) return *known;
  chosen.store(usable_kernels().front());
  return *chosen.load();
}

// Runs a lambda of (begin, end) through a ParallelFor, or on the calling thread where others are not worth waking.
// nanoseconds: about how long a piece takes.
template <class Body>
void for_pieces(ParallelFor parallel_for, int64_t count, double nanoseconds, Body body) {
  if (count <= 1 || static_cast<double>(count) * nanoseconds < parallel_for.worthwhile) return body(0, count);
  parallel_for.run(
      count, [](void* context, int64_t begin, int64_t end) { (*static_cast<Body*>(context))(begin, end); }, &body);
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

// Working memory that pieces hand on to each other: as many blocks as threads take part.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : bytes_(bytes) {}

  std::unique_ptr<char[]> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) return std::unique_ptr<char[]>(new char[bytes_ + kAlignment]);
    std::unique_ptr<char[]> memory = std::move(free_.back());
    free_.pop_back();
    return memory;
  }
  void give(std::unique_ptr<char[]> memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(memory));
  }
  void* aligned(char* memory) const {
    void* at = memory;
    size_t room = bytes_ + kAlignment;
    return std::align(kAlignment, bytes_, at, room);
  }

 private:
  static constexpr size_t kAlignment = 64;
  size_t bytes_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<char[]>> free_;
};

double run_pieces(const Kernels& isa, const Problem& problem, ParallelFor parallel_for) {
  const int64_t step = rows_in_piece(problem);
  const int64_t pieces = (problem.rows.count + step - 1) / step;
  Scratch scratch(isa.scratch_bytes(problem));
  std::vector<double> sums(static_cast<size_t>(pieces));
  for_pieces(parallel_for, pieces, isa.nanoseconds(problem, step), [&](int64_t begin, int64_t end) {
    std::unique_ptr<char[]> memory = scratch.take();
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = piece * step;
      const int64_t last = first + step < problem.rows.count ? first + step : problem.rows.count;
      sums[static_cast<size_t>(piece)] = isa.run_rows(problem, first, last, scratch.aligned(memory.get()));
    }
    scratch.give(std::move(memory));
  });
  return tree_sum(sums.data(), pieces);
}

// Few long rows: every segment of every row is a piece, once for the sums and once for the gradient.
double run_segments(const Kernels& isa, const Problem& problem, ParallelFor parallel_for) {
  const int64_t segments = segments_of(problem), rows = problem.rows.count;
  const size_t bytes = isa.row_state_bytes(problem);
  Scratch scratch(bytes * static_cast<size_t>(rows));
  const std::unique_ptr<char[]> memory = scratch.take();
  char* const states = static_cast<char*>(scratch.aligned(memory.get()));
  const auto state = [&](int64_t row) { return states + static_cast<size_t>(row) * bytes; };
  for (int64_t row = 0; row < rows; ++row) isa.start_row(problem, row, state(row));
  const double nanoseconds = isa.nanoseconds(problem, 1) / static_cast<double>(segments);
  for_pieces(parallel_for, rows * segments, nanoseconds, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) isa.sum_segment(problem, i % segments, state(i / segments));
  });
  std::vector<double> sums(static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) {
    sums[static_cast<size_t>(row)] = isa.finish_row(problem, row, state(row));
  }
  if (problem.grad) {
    for_pieces(parallel_for, rows * segments, nanoseconds, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) isa.write_segment(problem, i % segments, state(i / segments));
    });
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

}  // namespace

TargetSummary summarize_targets(const Problem& problem, ParallelFor parallel_for) {
  constexpr int64_t kStep = 8192;
  constexpr double kNanoseconds = 1200;  // for as many targets
  const Kernels& isa = kernels();
  const int64_t pieces = (problem.rows.count + kStep - 1) / kStep;
  std::vector<TargetSummary> parts(static_cast<size_t>(pieces));
  for_pieces(parallel_for, pieces, kNanoseconds, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t last = (i + 1) * kStep < problem.rows.count ? (i + 1) * kStep : problem.rows.count;
      isa.summarize(problem, i * kStep, last, &parts[static_cast<size_t>(i)]);
    }
  });
  TargetSummary whole;
  for (const TargetSummary& part : parts) {
    if (whole.bad_row < 0) whole.bad_row = part.bad_row;
    whole.kept += part.kept;
    whole.weight += part.weight;
  }
  return whole;
}

double run(const Problem& problem, ParallelFor parallel_for) {
  constexpr int64_t kFewRows = 16;
  const FloatMode mode;
  const Kernels& isa = kernels();
  const bool few_long_rows = problem.rows.count < kFewRows && segments_of(problem) > 2;
  const double sum = few_long_rows ? run_segments(isa, problem, parallel_for) : run_pieces(isa, problem, parallel_for);
  if (problem.total) write_total(problem.total, sum / problem.divisor);
  return sum;
}

const char* isa() { return kernels().name; }

const char* const* available_isas() {
  static const std::vector<const char*> names = [] {
    std::vector<const char*> list;
    for (const Kernels* kernels : usable_kernels()) list.push_back(kernels->name);
    list.push_back(nullptr);
    return list;
  }();
  return names.data();
}

bool select_isa(const char* name) {
  const Kernels* const found = find(name);
  if (found) chosen.store(found);
  return found != nullptr;
}

}  // namespace crossent
