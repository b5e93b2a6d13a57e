// What the bindings share: from the arrays of a caller, of any shape and strides, to a problem of the core.
#pragma once

#include <nanobind/nanobind.h>

#include <numeric>
#include <utility>
#include <vector>

#include "crossent.h"
#include "float_mode.h"

namespace crossent {

// The rows' dimensions of several arrays together, neighbours merged where every array allows it.
class RowLayout {
 public:
  // shape: of the logits; the class axis is left out.
  template <class Integer>
  RowLayout(const Integer* shape, int ndim, int axis) {
    for (int d = 0; d < ndim; ++d) {
      if (d != axis) shape_.push_back(shape[d]);
    }
    for (const int64_t extent : shape_) count_ *= extent;
  }

  // Registers an array; strides: in bytes; `axis` is its class axis, or -1.
  template <class Integer>
  void add(Array& array, const Integer* strides, int ndim, int axis) {
    std::vector<int64_t> of_rows;
    of_rows.reserve(shape_.size());
    for (int d = 0; d < ndim; ++d) {
      if (d == axis) {
        array.class_stride = strides[d];
      } else {
        of_rows.push_back(strides[d]);
      }
    }
    arrays_.push_back(&array);
    strides_.push_back(std::move(of_rows));
  }

  // Merges dimensions and points the arrays and the rows at the result, which this object keeps.
  void settle(Rows& rows) {
    size_t last = 0;  // dimensions kept so far, less one
    bool any = false;
    for (size_t d = 0; d < shape_.size(); ++d) {
      if (shape_[d] == 1) continue;
      if (any && mergeable(last, d)) {
        shape_[last] *= shape_[d];
        for (auto& strides : strides_) strides[last] = strides[d];
        continue;
      }
      if (any) ++last;
      any = true;
      shape_[last] = shape_[d];
      for (auto& strides : strides_) strides[last] = strides[d];
    }
    rows = {any ? static_cast<int>(last + 1) : 0, shape_.data(), count_};
    for (size_t i = 0; i < arrays_.size(); ++i) arrays_[i]->row_strides = strides_[i].data();
  }

 private:
  bool mergeable(size_t outer, size_t inner) const {
    for (const auto& strides : strides_) {
      if (strides[outer] != strides[inner] * shape_[inner]) return false;
    }
    return true;
  }

  std::vector<int64_t> shape_;
  int64_t count_ = 1;
  std::vector<Array*> arrays_;
  std::vector<std::vector<int64_t>> strides_;
};

// The integer of an index target that is ignored, read as signed or, where only that holds it, unsigned.
inline void set_ignored(Problem& problem, nanobind::handle value) {
  if (value.is_none()) return;
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
  problem.ignores = true;
  problem.ignore_value = number;
  if (overflow == 0) return;
  const unsigned long long large = PyLong_AsUnsignedLongLong(value.ptr());
  if (PyErr_Occurred()) {
    PyErr_Clear();  // no integer dtype holds it: nothing is ignored
    problem.ignores = false;
    return;
  }
  problem.ignore_value = static_cast<int64_t>(large);
  problem.ignore_is_unsigned = true;
}

constexpr int64_t kNothingCounts = -2;  // in place of a bad row: the divisor is 0

struct Answer {
  double sum = 0, divisor = 1;  // of the losses
  int64_t bad_row = -1;         // the first row whose target is not a class
};

// Looks at the targets, then runs the core unless a row is bad or the divisor is 0: then nothing was written.
// normalizer: the divisor of a mean, 0 where it is computed; scale: multiplies the gradient. Needs no interpreter.
inline Answer answer(Problem& problem, bool mean, double normalizer, double scale, ParallelFor parallel_for) {
  const FloatMode mode;
  Answer answer;
  double kept = static_cast<double>(problem.rows.count);
  if (problem.form == Targets::index) {
    const TargetSummary summary = summarize_targets(problem, parallel_for);
    answer.bad_row = summary.bad_row;
    kept = problem.weight ? summary.weight : static_cast<double>(summary.kept);
  }
  if (mean) answer.divisor = normalizer != 0 ? normalizer : kept;
  if (answer.bad_row < 0 && answer.divisor == 0) answer.bad_row = kNothingCounts;
  if (answer.bad_row == -1) {
    problem.weight_sum = static_cast<double>(problem.classes);
    if (problem.weight) problem.weight_sum = std::accumulate(problem.weight, problem.weight + problem.classes, 0.0);
    problem.scale = scale / answer.divisor;
    problem.divisor = answer.divisor;
    answer.sum = run(problem, parallel_for);
  }
  return answer;
}

}  // namespace crossent
