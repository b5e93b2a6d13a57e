// The first pass over a row of plain logits: the sum of its exponentials, block by block from L1, each computed once
// and kept for the gradient where there is room.
#pragma once

#include "row.h"

namespace crossent {
namespace {

// What a block's kept exponentials are measured against; in an empty block every logit is -inf.
template <class X>
struct BlockReference {
  Reference<X> reference;
  bool empty = false;
};

template <class X, class From>
CROSSENT_INLINE X block_max(const From* logits, int count) {
  constexpr int W = kLanes<X>;
  V<X> m0 = broadcast<X>(-kInfinity<X>), m1 = m0, m2 = m0, m3 = m0;
  int i = 0;
  for (; i + 4 * W <= count; i += 4 * W) {
    m0 = max<X>(m0, load_as<X>(logits + i));
    m1 = max<X>(m1, load_as<X>(logits + i + W));
    m2 = max<X>(m2, load_as<X>(logits + i + 2 * W));
    m3 = max<X>(m3, load_as<X>(logits + i + 3 * W));
  }
  for (; i + W <= count; i += W) m0 = max<X>(m0, load_as<X>(logits + i));
  if (i < count) m1 = max<X>(m1, load_first_as<X>(logits + i, count - i, -kInfinity<X>));
  return largest_lane<X>(max<X>(max<X>(m0, m1), max<X>(m2, m3)));
}

// The largest of a block's logits without class `skip` (-1: none).
template <class X, class From>
CROSSENT_INLINE X largest_other(const From* logits, int count, int skip) {
  if (skip < 0) return block_max<X>(logits, count);
  const X before = block_max<X>(logits, skip), after = block_max<X>(logits + skip + 1, count - skip - 1);
  return before > after ? before : after;
}

// Sum of exp_term over a block, without class `skip` (-1: none); the exponentials are kept in `keep` if kKeep, which
// may be the logits. largest: of those summed. tails: what the logits lost to rounding, if kTail.
template <class X, bool kKeep, bool kShifted, bool kTail, class From>
Total sum_block_from(const From* logits, const X* tails, int count, int skip, X largest, const Reference<X>& reference,
                     X* keep) {
  constexpr int W = kLanes<X>;
  const ExpConstants<X> constants(reference);
  const V<X> power = power_of<X>(broadcast(largest), constants);
  Sum<X, Pair<V<X>>> pairs({power, power});
  Sum<X, V<X>> sum(power);
  const auto add_pairs = [&](int from, int count_of_pairs) __attribute__((always_inline)) {
    for_terms<X>(
        count_of_pairs,
        [&](int k) __attribute__((always_inline)) {
          const int i = from + k * 2 * W;
          // The next block comes from memory while this one is computed.
          __builtin_prefetch(logits + i + 2 * kBlock<X>);
          __builtin_prefetch(logits + i + W + 2 * kBlock<X>);
          const Pair<V<X>> tail = kTail ? load_pair(tails + i) : Pair<V<X>>{};
          const Pair<V<X>> logit{load_as<X>(logits + i), load_as<X>(logits + i + W)};
          return reduce_logit<X, kShifted, kTail>(logit, constants, tail);
        },
        [&](int k, ExpTerm<Pair<V<X>>> term) __attribute__((always_inline)) {
          if constexpr (kKeep) store<X>(keep + from + k * 2 * W, term.value);
          pairs.add(term);
        });
  };
  const auto add_vector = [&](int i) __attribute__((always_inline)) {
    const V<X> tail = kTail ? load(tails + i) : V<X>{};
    const ExpTerm<V<X>> term = exp_term<X, kShifted, kTail>(load_as<X>(logits + i), constants, tail);
    if constexpr (kKeep) store(keep + i, term.value);
    sum.add(term);
  };
  // The vector of the skipped class and the last partial one: some lanes do not count.
  const auto add_edge = [&](int i, int width) {
    const V<X> tail = kTail ? load_first(tails + i, width, X(0)) : V<X>{};
    const V<X> logit = load_first_as<X>(logits + i, width, X(0));
    const ExpTerm<V<X>> term = exp_term<X, kShifted, kTail>(logit, constants, tail);
    if constexpr (kKeep) store_first(keep + i, term.value, width);
    const auto lane = lane_index<X>();
    const auto counts = (lane < width) & (lane != skip - i);
    const V<X> none{};
    sum.add(ExpTerm<V<X>>{counts ? term.value : none, counts ? term.minus_one : none, counts ? term.power : none});
  };
  const int whole = count / W * W;
  const int pause = skip >= 0 && skip < whole ? skip / W * W : whole;
  int i = 0;
  for (int end = pause;; end = whole) {
    const int count_of_pairs = (end - i) / (2 * W);
    add_pairs(i, count_of_pairs);
    i += count_of_pairs * 2 * W;
    for (; i < end; i += W) add_vector(i);
    if (end == whole) break;
    add_edge(i, W);
    i += W;
  }
  if (whole < count) add_edge(whole, count - whole);
  const Pair<V<X>> held = pairs.held(), lost = pairs.lost();
  const Total total = total_of<X>((held.low + held.high) + sum.held(), (lost.low + lost.high) + sum.lost());
  const bool empty = largest == -kInfinity<X> && total.sum == total.sum;  // a nan need not show in the maximum
  return empty ? Total{} : total;
}

template <class X, bool kKeep, bool kTail = false, class From>
Total sum_block(const From* logits, int count, int skip, X largest, const Reference<X>& reference, X* keep,
                const X* tails = nullptr) {
  Total total = reference.offset != 0
                    ? sum_block_from<X, kKeep, true, kTail>(logits, tails, count, skip, largest, reference, keep)
                    : sum_block_from<X, kKeep, false, kTail>(logits, tails, count, skip, largest, reference, keep);
  total.sum *= ExpTable<X>::kUnbias;
  total.lost *= ExpTable<X>::kUnbias;
  return total;
}

// sum of weight_k (u_k - base) over a block of float logits: what smoothing adds to the loss. weight: of the block, or
// null for 1; where it is 0, an infinite logit adds nothing.
template <class X>
double smooth_block(const X* logits, int count, const double* weight, double base) {
  constexpr int W = kLanes<X>, kHalf = kLanes<double>;
  V<double> sum{};
  for (int i = 0; i < count; i += W) {
    const int width = count - i < W ? count - i : W;
    const V<X> u = load_first(logits + i, width, static_cast<X>(base));
    for (int half = 0; half < W / kHalf; ++half) {
      const int left = width - half * kHalf;
      const V<double> difference = to_wide(u, half) - base;
      if (!weight) {
        sum += difference;
      } else if (left > 0) {
        const V<double> w = load_first(weight + i + half * kHalf, left < kHalf ? left : kHalf, 0.0);
        sum += w != 0.0 ? w * difference : V<double>{};
      }
    }
  }
  return sum_of_lanes<double>(sum);
}

// Adds the block of classes from `at` on to a row's sums. keep: room for the exponentials of the whole row, or null.
template <class X, class From>
void sum_block_of_row(const Problem& problem, const From* logits, int64_t at, int count, X* keep,
                      BlockReference<X>* block_reference, Sums<X>& sums) {
  const int64_t anchor = sums.anchor - at;
  const int skip = anchor >= 0 && anchor < count ? static_cast<int>(anchor) : -1;
  const X other = largest_other<X>(logits, count, skip), own = skip >= 0 ? widened(logits[skip]) : other;
  const X largest = own > other ? own : other;
  const bool counts = largest > -kInfinity<X> && largest < kInfinity<X>;  // else: all -inf, or one inf or nan
  const Reference<X> reference = counts ? reference_for(largest, sums.reference, sums.empty) : Reference<X>{};
  if constexpr (std::is_same_v<From, X>) {
    if (has_mass(problem)) {
      const double* const weight = problem.weight ? problem.weight + at : nullptr;
      sums.linear.add(even_mass(problem) * smooth_block(logits, count, weight, sums.base()));
    }
  }
  const Total sum = keep ? sum_block<X, true>(logits, count, skip, other, reference, keep + at)
                         : sum_block<X, false>(logits, count, skip, other, reference, static_cast<X*>(nullptr));
  sums.row_max = static_cast<double>(largest) > sums.row_max ? static_cast<double>(largest) : sums.row_max;
  *block_reference = {reference, !counts};
  if (counts) {
    const double factor = sums.join(reference);
    sums.add(sum, factor);
  } else if (!(sum.sum < kInfinity<double>) || largest == kInfinity<X>) {
    sums.add(kNan<double>);
  }
}

// Adds classes [begin, end) of one row to `sums`. Halves are converted in registers, but for smoothing.
template <class X>
void sum_row(const Problem& problem, const char* row, int64_t begin, int64_t end, X* keep,
             BlockReference<X>* references, Sums<X>& sums) {
  X buffer[kBlock<X>];
  const Array& array = problem.logits;
  const int64_t stride = array.class_stride;
  for (int64_t at = begin; at < end; at += kBlock<X>, ++references) {
    const int count = static_cast<int>(end - at < kBlock<X> ? end - at : kBlock<X>);
    const char* const first = row + at * stride;
    const auto add = [&](const auto* logits) { sum_block_of_row(problem, logits, at, count, keep, references, sums); };
    if constexpr (sizeof(X) == 4) {
      if (!has_mass(problem) && is_halves<Type::bfloat16>(array, first, stride)) {
        add(reinterpret_cast<const Half<Type::bfloat16>*>(first));
        continue;
      }
      if (!has_mass(problem) && is_halves<Type::float16>(array, first, stride)) {
        add(reinterpret_cast<const Half<Type::float16>*>(first));
        continue;
      }
    }
    add(stage(array, first, stride, count, buffer));
  }
}

}  // namespace
}  // namespace crossent
