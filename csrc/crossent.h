// What the core computes, for whom: arrays in, arrays out. No Python, PyTorch or XLA type appears here.
// N rows, C classes. Row i has logits a; u = softcap * tanh(logit_scale * a / softcap); see reference.py for the
// meaning.
#pragma once

#include <cstdint>

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

enum class Targets : int { none, index, distribution };
enum class Output : int { loss, softmax, log_softmax, scores, product };

struct Problem {
  Rows rows;
  int64_t classes = 0;
  Array logits;
  Targets form = Targets::none;
  Array targets;
  Array grad_loss;                 // one factor a row; absent: 1
  Array vector;                    // v of the Hessian's product
  const double* weight = nullptr;  // C class weights; null: 1
  double weight_sum = 0;           // their sum, C when null
  bool ignores = false;            // index targets equal to ignore_value (or to its unsigned reading) are left out
  int64_t ignore_value = 0;
  bool ignore_is_unsigned = false;
  double label_smoothing = 0, z_loss = 0, softcap = 0 /* 0: none */, logit_scale = 1;
  double scale = 1;  // every row's gradient is multiplied by it, e.g. 1 / divisor

  Output output = Output::loss;
  Array total;  // one number, float32 or float64: the sum of the rows' losses / divisor
  double divisor = 1;
  Array loss;  // per row: the loss, or the nll of the scores
  Array grad;  // (N, C): gradient, probabilities, log-probabilities or Hessian product
  Array lse, entropy, argmax;
};

// What the targets of an index problem say before anything is computed.
struct TargetSummary {
  int64_t bad_row = -1;  // the first row whose target is neither ignored nor in [0, C)
  int64_t kept = 0;
  double weight = 0;  // sum over kept rows of weight[target]
};

// How work is spread over threads.
struct ParallelFor {
  // Runs body(context, begin, end) over disjoint pieces of [0, count), on any threads, and returns when all are done.
  void (*run)(int64_t count, void (*body)(void*, int64_t, int64_t), void* context);
  double worthwhile;  // nanoseconds of work from which on it is quicker than the calling thread alone
};

TargetSummary summarize_targets(const Problem& problem, ParallelFor parallel_for);

// Computes what `problem` asks for. Returns the sum of the rows' losses: the same for any threads.
double run(const Problem& problem, ParallelFor parallel_for);

const char* isa();                    // the instruction set in use
const char* const* available_isas();  // null-terminated, best first
bool select_isa(const char* name);    // false if this machine or build has no such set

}  // namespace crossent
