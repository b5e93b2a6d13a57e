// Bound by memory, so the plain instruction set will do: one copy.
#include "bfloat16.h"

#include <algorithm>

#include "stage.h"

namespace crossent {
namespace {

constexpr int64_t kPiece = 1 << 16;  // numbers: long enough to be worth a thread's while

struct Widening {
  const char* from;
  int64_t count;
  float* to;

  static void piece(void* self, int64_t begin, int64_t end) {
    const auto& work = *static_cast<Widening*>(self);
    const int64_t first = begin * kPiece, last = std::min(end * kPiece, work.count);
    widen_halves<Type::bfloat16>(work.from + 2 * first, static_cast<int>(last - first), work.to + first);
  }
};

struct Narrowing {
  float* data;
  int64_t columns;

  // A vector is read before it is written, and never after what overwrites it: the write stays behind.
  static void rows(void* self, int64_t begin, int64_t end) {
    const auto& work = *static_cast<Narrowing*>(self);
    for (int64_t row = begin; row < end; ++row) {
      float* const first = work.data + row * work.columns;
      char* const to = reinterpret_cast<char*>(first);
      for (int64_t k = 0; k < work.columns; k += kPiece) {
        const int count = static_cast<int>(std::min(kPiece, work.columns - k));
        narrow_to_halves<Type::bfloat16>(first + k, count, to + 2 * k);
      }
    }
  }
};

}  // namespace

void widen_bfloat16(const char* from, int64_t count, float* to, ParallelFor parallel_for) {
  Widening work{from, count, to};
  parallel_for((count + kPiece - 1) / kPiece, Widening::piece, &work);
}

void narrow_rows_to_bfloat16(float* data, int64_t rows, int64_t columns, ParallelFor parallel_for) {
  Narrowing work{data, columns};
  parallel_for(rows, Narrowing::rows, &work);
}

}  // namespace crossent
