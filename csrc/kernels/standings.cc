#include "standings.h"

#include "simd.h"

namespace crossent {
namespace {

constexpr int64_t kPiece = 1024;  // numbers whose squares are added in their own precision; beyond, in double

// The vector at `from`, of which `left` numbers exist.
template <class X>
CROSSENT_INLINE V<X> load_some(const X* from, int64_t left, X fill) {
  return left < kLanes<X> ? load_first<X>(from, static_cast<int>(left), fill) : load<X>(from);
}

template <class X>
CROSSENT_INLINE double sum_of_squares(const X* numbers, int64_t count) {
  constexpr int kSums = 4;
  V<X> sums[kSums] = {};
  for (int64_t k = 0; k < count; k += kSums * kLanes<X>) {
#pragma GCC unroll 4
    for (int i = 0; i < kSums; ++i) {
      const int64_t at = k + i * kLanes<X>;
      if (at >= count) break;
      const V<X> number = load_some<X>(numbers + at, count - at, 0);
      sums[i] += number * number;
    }
  }
  return wide_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// How many numbers are above a bound, or at least as large.
template <class X, bool or_equal>
CROSSENT_INLINE int64_t count_above(const X* numbers, int64_t count, X bound) {
  const V<X> bounds = broadcast<X>(bound);
  V<Bits<X>> minus{};
  for (int64_t k = 0; k < count; k += kLanes<X>) {
    const V<X> number = load_some<X>(numbers + k, count - k, kNan<X>);  // nan is above nothing
    minus += or_equal ? number >= bounds : number > bounds;             // -1 where true
  }
  int64_t result = 0;
  for (int i = 0; i < kLanes<X>; ++i) result -= minus[i];
  return result;
}

template <class X>
CROSSENT_INLINE X largest_of(const X* numbers, int64_t count) {
  V<X> largest = broadcast<X>(-kInfinity<X>);
  for (int64_t k = 0; k < count; k += kLanes<X>) {
    largest = max<X>(load_some<X>(numbers + k, count - k, -kInfinity<X>), largest);
  }
  return largest_lane<X>(largest);
}

template <class X>
CROSSENT_INLINE int64_t first_largest(const X* row, int64_t classes) {
  X largest = -kInfinity<X>;
  int64_t place = 0;
  for (int64_t k = 0; k < classes; k += kPiece) {
    const X of_piece = largest_of(row + k, classes - k < kPiece ? classes - k : kPiece);
    if (of_piece > largest) largest = of_piece, place = k;
  }
  while (row[place] < largest) ++place;
  return place;
}

template <class X>
void stand(const Standing<X>& standing, int64_t begin, int64_t end, const X* residual) {
  const int64_t classes = standing.classes;
  for (int64_t i = begin; i < end; ++i, residual += classes) {
    double squares = 0;
    for (int64_t k = 0; k < classes; k += kPiece) {
      squares += sum_of_squares(residual + k, classes - k < kPiece ? classes - k : kPiece);
    }
    standing.squares[i] = squares;
    const int64_t label = standing.label[i];
    standing.rank[i] = 1;
    standing.answer[i] = label;
    if (!(standing.loss[i] < standing.surely_right)) {
      const X* const row = standing.logits + i * classes;
      const int64_t ahead = count_above<X, true>(row, label, row[label]) +
                            count_above<X, false>(row + label + 1, classes - label - 1, row[label]);
      standing.rank[i] = 1 + ahead;
      if (ahead != 0) standing.answer[i] = first_largest(row, classes);
    }
    standing.near[i] = residual[standing.answer[i]];
  }
}

}  // namespace

namespace CROSSENT_SET {
extern const Standings standings;
const Standings standings = {stand<float>, stand<double>};
}  // namespace CROSSENT_SET

}  // namespace crossent
