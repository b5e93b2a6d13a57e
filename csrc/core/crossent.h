// What the core computes, for whom: arrays in, arrays out. No Python, PyTorch or XLA type appears here.
// N rows, C classes. Row i has logits a; u = softcap * tanh(logit_scale * a / softcap); see reference.py for the
// meaning.
#pragma once

#include <cstdint>
#include <limits>

namespace crossent {

enum class Type : int {
  float64,
  float32,
  float16,
  bfloat16,
  int64,
  int32,
  int16,
  int8,
  uint64,
  uint32,
  uint16,
  uint8,
  boolean
};

constexpr int size_of(Type type) {
  constexpr int sizes[] = {8, 4, 2, 2, 8, 4, 2, 1, 8, 4, 2, 1, 1};
  return sizes[static_cast<int>(type)];
}

constexpr int kMostDimensions = 64;  // of an array

// A strided array over rows and, where it has them, classes. Strides are in bytes, of either sign or zero.
struct Array {
  char* data = nullptr;
  const int64_t* row_strides = nullptr;  // one per dimension of Rows
  int64_t class_stride = 0;
  Type type = Type::float64;
  bool swapped = false;  // the byte order is not this machine's

  explicit operator bool() const { return data != nullptr; }
};

// The rows: every dimension but the classes, in C order.
struct Rows {
  int dimensions = 0;
  const int64_t* shape = nullptr;
  int64_t count = 0;
};

enum class Reduction { none, sum, mean };
enum class WhenEmpty { nan, zero, raise };

// The options of the loss, each by the rules of options.py.
struct Options {
  bool ignores = false;  // index targets equal to ignore_index (or to its unsigned reading) are left out
  int64_t ignore_index = 0;
  bool ignore_is_unsigned = false;
  Reduction reduction = Reduction::none;
  double label_smoothing = 0;
  double z_loss = 0;
  double softcap = 0;  // 0: none
  double logit_scale = 1;
  double normalizer = 0;  // 0: the divisor of the mean is what counts of the rows
  WhenEmpty when_empty = WhenEmpty::nan;
};

enum class Targets { none, index, distribution };
enum class Output { loss, softmax, log_softmax, scores, product };

struct Problem {
  Output output = Output::loss;
  Options options;
  Rows rows;
  int64_t classes = 0;

  // In
  Array logits;
  Targets form = Targets::none;
  Array targets;
  const double* weight = nullptr;  // C class weights; null: 1
  Array grad_loss;                 // one factor a row; absent: 1
  double scale = 1;                // every row's gradient is multiplied by it
  Array vector;                    // v of the Hessian's product

  // Out
  Array total;    // one number, float32 or float64: the sum of the rows' losses / divisor
  Array loss;     // per row: the loss, or the nll of the scores
  Array grad;     // (N, C): gradient, probabilities, log-probabilities or Hessian product
  Array verdict;  // per row, uint8: a Verdict
  Array lse, entropy, argmax;

  double weight_sum = 0;  // of the class weights, C without them; known to the kernels, not to a caller
};

// What a row's target is. Every row of a distribution is kept.
enum class Verdict : uint8_t { ignored, kept, bad };

// What targets mean before anything is computed.
struct Judgement {
  int64_t bad_row = -1;  // the first row whose target is neither ignored nor in [0, C)
  int64_t kept = 0;      // rows
  double weight = 0;     // sum of weight[target] over them
  double divisor = 1;    // of the sum of the losses: 1 unless it is a mean; 0 where nothing counts
};

struct Outcome {
  double sum = 0;        // of the rows' losses: the same for any threads
  int64_t bad_row = -1;  // not -1: nothing was written
  bool empty = false;    // nothing counts in the mean; where that is an error, nothing was written
};

// How work is spread over threads.
struct ParallelFor {
  // Runs body(context, worker, piece) for every piece of [0, count) on up to `workers` threads, each with a number of
  // its own below that, and returns when all are done. An exception keeps pieces from beginning and then reaches the
  // caller.
  void (*run)(int64_t count, int64_t workers, void (*body)(void*, int64_t, int64_t), void* context);
  int64_t (*most_workers)();
  double worthwhile;  // nanoseconds of work from which on it is quicker than the calling thread alone
};

// Everything on the calling thread.
constexpr ParallelFor kCallingThread = {nullptr, nullptr, std::numeric_limits<double>::infinity()};

// Fills problem.verdict too where it is given.
Judgement judge(const Problem& problem, ParallelFor parallel_for);

// Computes what `problem` asks for, of targets that have been judged. Where nothing counts the loss is what when_empty
// says and the gradient 0.
Outcome solve(Problem problem, double divisor, ParallelFor parallel_for);

// Judges, then solves unless a row is bad.
Outcome judge_and_solve(const Problem& problem, ParallelFor parallel_for);

// The instruction set in use: at first the environment's CROSSENT_ISA, else the best. Throws std::invalid_argument
// where that names none that is here.
const char* isa();
const char* const* available_isas();  // null-terminated, best first
bool select_isa(const char* name);    // false if this machine or build has no such set

}  // namespace crossent
