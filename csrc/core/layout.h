// From arrays as callers describe them, of any shape and strides, to rows that all of them share.
#pragma once

#include <stdexcept>
#include <string>

#include "crossent.h"

namespace crossent {

// An array with every dimension; strides are in bytes.
struct Strided {
  Array array;
  int dimensions = 0;
  bool has_shape = true;  // else it is our own, made to fit
  int64_t shape[kMostDimensions];
  int64_t strides[kMostDimensions];
};

// What a caller gives for a number may change arrays that have been checked, as it is asked for its value.
inline void check_unchanged(bool fits, const char* name) {
  if (!fits) {
    throw std::invalid_argument(std::string(name) +
                                ": its shape or dtype is no longer the one that was checked; "
                                "something changed it during the call");
  }
}

constexpr int kNoClasses = -1;  // in place of the class axis of an array that has one number a row

// The rows' dimensions of the arrays of a problem, neighbours merged where every array allows it.
class RowLayout {
 public:
  RowLayout(const Strided& logits, int axis) : classes_(axis == kNoClasses ? 0 : logits.shape[axis]) {
    for (int d = 0; d < logits.dimensions; ++d) {
      if (d == axis) continue;
      shape_[dimensions_++] = logits.shape[d];
      count_ *= logits.shape[d];
    }
  }
  RowLayout(const RowLayout&) = delete;

  // Takes an array into the problem, where there is one. name: for the error where it does not fit.
  void add(Array& array, const Strided& given, int axis, const char* name) {
    if (!given.array) return;
    check_unchanged(fits(given, axis), name);
    array = given.array;
    int64_t* const strides = strides_[arrays_];
    int row = 0;
    for (int d = 0; d < given.dimensions; ++d) {
      if (d == axis) {
        array.class_stride = given.strides[d];
      } else {
        strides[row++] = given.strides[d];
      }
    }
    added_[arrays_++] = &array;
  }

  // Merges dimensions and points the arrays and the rows at the result, which this object keeps.
  Rows settle() {
    int kept = 0;
    for (int d = 0; d < dimensions_; ++d) {
      if (shape_[d] == 1) continue;
      const bool merges = kept > 0 && mergeable(kept - 1, d);
      const int to = merges ? kept - 1 : kept++;
      shape_[to] = merges ? shape_[to] * shape_[d] : shape_[d];
      for (int i = 0; i < arrays_; ++i) strides_[i][to] = strides_[i][d];
    }
    for (int i = 0; i < arrays_; ++i) added_[i]->row_strides = strides_[i];
    return {kept, shape_, count_};
  }

 private:
  bool mergeable(int outer, int inner) const {
    for (int i = 0; i < arrays_; ++i) {
      if (strides_[i][outer] != strides_[i][inner] * shape_[inner]) return false;
    }
    return true;
  }

  bool fits(const Strided& given, int axis) const {
    if (given.dimensions != dimensions_ + (axis != kNoClasses)) return false;
    for (int d = 0, row = 0; given.has_shape && d < given.dimensions; ++d) {
      if (given.shape[d] != (d == axis ? classes_ : shape_[row++])) return false;
    }
    return true;
  }

  static constexpr int kMostArrays = 10;
  const int64_t classes_;
  int dimensions_ = 0, arrays_ = 0;
  int64_t count_ = 1;
  int64_t shape_[kMostDimensions];
  int64_t strides_[kMostArrays][kMostDimensions];
  Array* added_[kMostArrays];
};

}  // namespace crossent
