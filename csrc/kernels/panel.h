// Rows that lie side by side, with more classes than a tile holds: copied, transposed, to a panel where each row is
// contiguous, and their results copied back.
#pragma once

#include "tile.h"

namespace crossent {
namespace {

constexpr int kPanelRows = 16;           // a line of cache, of floats
constexpr int64_t kPanelClasses = 4096;  // the most: pieces of more classes have fewer rows

// Whether a problem's arrays have steps of whole elements, other than 1 between classes, and types that can be moved.
inline bool takes_panels(const Problem& problem) {
  const auto fits = [](const Array& array) {
    const int64_t size = size_of(array.type);
    return size >= 4 && !array.swapped && array.class_stride != size && array.class_stride % size == 0 &&
           reinterpret_cast<uintptr_t>(array.data) % static_cast<uintptr_t>(size) == 0;
  };
  return problem.classes <= kPanelClasses && problem.rows.dimensions > 0 && fits(problem.logits) &&
         (!problem.grad || (fits(problem.grad) && problem.grad.type == problem.logits.type));
}

inline size_t panel_bytes(const Problem& problem) {
  if (!takes_panels(problem)) return 0;
  return static_cast<size_t>(kPanelRows * problem.classes * size_of(problem.logits.type));
}

// Classes of `count` rows side by side, squares of W x W at a time: to the rows of a panel (kBack: from them).
template <class T, bool kBack>
void move_panel(char* first, int64_t stride, int count, int64_t classes, T* panel) {
  constexpr int W = kLanes<T>;
  for (int row = 0; row < count; row += W) {
    const int rows = count - row < W ? count - row : W;
    for (int64_t k = 0; k < classes; k += W) {
      const int width = static_cast<int>(classes - k < W ? classes - k : W);
      V<T> square[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) {
        const T* const from =
            kBack ? panel + (row + i) * classes + k : reinterpret_cast<const T*>(first + (k + i) * stride) + row;
        const int across = kBack ? width : rows;
        square[i] = i < (kBack ? rows : width) ? load_first(from, across, T(0)) : V<T>{};
      }
      transpose<T>(square);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) {
        T* const to = kBack ? reinterpret_cast<T*>(first + (k + i) * stride) + row : panel + (row + i) * classes + k;
        if (i < (kBack ? width : rows)) store_first(to, square[i], kBack ? rows : width);
      }
    }
  }
}

template <bool kBack>
void move_panel(const Problem& problem, char* first, int64_t stride, int count, void* panel) {
  if (problem.logits.type == Type::float32) {
    move_panel<float, kBack>(first, stride, count, problem.classes, static_cast<float*>(panel));
  } else {
    move_panel<double, kBack>(first, stride, count, problem.classes, static_cast<double*>(panel));
  }
}

// A problem whose groups of rows are brought to a panel where they lie side by side.
class Panels {
 public:
  Panels(const Problem& problem, void* memory)
      : problem_(problem), staged_(problem), panel_(static_cast<char*>(memory)), possible_(takes_panels(problem)) {
    staged_.logits.class_stride = size_of(problem.logits.type);
    staged_.grad.class_stride = size_of(problem.grad.type);
  }

  // The problem to compute for this group, whose rows may be moved.
  const Problem& begin(RowGroup& group) {
    const Type type = problem_.logits.type;
    uses_ = possible_ && side_by_side(group, group.logits, group.rows, type) &&
            (!problem_.grad || side_by_side(group, group.grad, group.rows, type));
    if (!uses_) return problem_;
    first_grad_ = group.grad[0];
    move_panel<false>(problem_, group.logits[0], problem_.logits.class_stride, group.rows, panel_);
    for (int r = 0; r < group.rows; ++r) {
      group.logits[r] = group.grad[r] = panel_ + r * problem_.classes * size_of(type);
    }
    return staged_;
  }

  void end(const RowGroup& group) const {
    if (!uses_ || !problem_.grad) return;
    move_panel<true>(problem_, first_grad_, problem_.grad.class_stride, group.rows, panel_);
  }

 private:
  const Problem& problem_;
  Problem staged_;
  char* panel_;
  bool possible_, uses_ = false;
  char* first_grad_ = nullptr;
};

}  // namespace
}  // namespace crossent
