// The one exponential: of whole vectors, kept biased by a power of two so that small results stay normal numbers.
#pragma once

#include "pair.h"

namespace crossent {
namespace {

// exp(r) = 1 + r + r^2 q(r) on |r| <= ln(2)/2 (1 + slack): q minimax in relative error, 2^-28.2 and 2^-57.9.
template <class X>
struct ExpTable;

template <>
struct ExpTable<float> {
  static constexpr int kMantissaBits = 23;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer held in the low bits
  static constexpr int kExponentBias = 127;
  static constexpr int kBias = 60;  // results are exp * 2^kBias
  static constexpr double kUnbias = 0x1p-60;
  // Factors of kept exponentials: within these, head and tail are normal numbers, and -inf's stay 0.
  static constexpr double kSmallestFactor = 0x1p-40, kLargestFactor = 0x1p24;
  static constexpr int kSlack = 30;  // how far, in powers of two, a maximum may outgrow its reference
  static constexpr float kLn2 = 0.693147180559945309417f;
  static constexpr float kLn2Tail = -1.90465429995776804525e-9f;
  static constexpr float q[] = {0.0013814174161023442303f, 0.0083689217933171346901f, 0.041668407972857895843f,
                                0.16666518938611104423f, 0.49999993333493562724f};
};

template <>
struct ExpTable<double> {
  static constexpr int kMantissaBits = 52;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kExponentBias = 1023;
  static constexpr int kBias = 500;
  static constexpr double kUnbias = 0x1p-500;
  static constexpr double kSmallestFactor = 0x1p-400, kLargestFactor = 0x1p300;
  static constexpr int kSlack = 100;
  static constexpr double kLn2 = 0.693147180559945309417;
  static constexpr double kLn2Tail = 2.31904681384629955842e-17;
  static constexpr double q[] = {2.5000061602835666699e-8, 2.7630248379211443975e-7, 2.7557586373840163694e-6,
                                 2.4801493098906550659e-5, 1.9841269506578687653e-4, 1.3888888943630112946e-3,
                                 8.3333333334944616641e-3, 4.1666666666530158590e-2, 1.6666666666666412523e-1,
                                 5.0000000000000106271e-1};
};

template <class X>
constexpr X kLog2e = static_cast<X>(1.44269504088896340736);

// Logits beyond this are shifted by their block's maximum before the exponential; below it no shift is needed, since
// the range reduction takes any such number exactly. Where a shift is used it is exact for every class that matters.
constexpr double kShiftFrom = 1048576.0;

// What exponentials are measured against: value * 2^(exponent - kBias) * exp(offset) = exp(logit). One of the two is 0.
template <class X>
struct Reference {
  X offset = 0;
  X exponent = 0;

  double nats() const { return static_cast<double>(offset) + static_cast<double>(exponent) * ExpTable<double>::kLn2; }
  bool operator==(const Reference& other) const { return offset == other.offset && exponent == other.exponent; }
};

// exp(from) / exp(to): a power of two, or nearly exact where only one of the two is an offset.
template <class X>
inline double ratio(const Reference<X>& from, const Reference<X>& to) {
  using Table = ExpTable<double>;
  const double power = static_cast<double>(from.exponent) - static_cast<double>(to.exponent);
  if (from.offset == to.offset) return __builtin_ldexp(1.0, static_cast<int>(power));
  // Where the result is not 0 the first sum is exact: its terms nearly cancel.
  const double nats = power * Table::kLn2;
  const double lost = fma(power, Table::kLn2, -nats) + power * Table::kLn2Tail;
  return __builtin_exp(((static_cast<double>(from.offset) - static_cast<double>(to.offset)) + nats) + lost);
}

// The reference for a block whose largest logit is `block_max`: the current one while it serves.
template <class X>
CROSSENT_INLINE Reference<X> reference_for(X block_max, const Reference<X>& current, bool empty) {
  using Table = ExpTable<X>;
  if (block_max >= static_cast<X>(kShiftFrom) || block_max <= static_cast<X>(-kShiftFrom)) return {block_max, 0};
  const X power = (block_max * kLog2e<X> + Table::kRound) - Table::kRound;
  if (!empty && current.offset == 0 && power <= current.exponent + Table::kSlack) return current;
  return {0, power};
}

// What exp_term needs to know of a reference: one for all lanes, or one for each. Vec: a vector, or a pair of them.
template <class X, class Vec = V<X>>
struct ExpConstants {
  Vec offset, round, lowest;

  explicit CROSSENT_INLINE ExpConstants(Vec reference_offset, Vec exponent) {
    using Table = ExpTable<X>;
    offset = reference_offset;
    round = exponent * broadcast<X>(-1) + broadcast<X>(Table::kRound + Table::kExponentBias + Table::kBias);
    lowest = (exponent - broadcast<X>(Table::kExponentBias - 3 + Table::kBias)) * broadcast<X>(Table::kLn2);
  }
  explicit CROSSENT_INLINE ExpConstants(const Reference<X>& reference)
      : ExpConstants(broadcast<X>(reference.offset), broadcast<X>(reference.exponent)) {}
};

// exp in three steps, which loops may take for several vectors at once. Vec: a vector of X, or a pair of them.
// 1. x = n ln 2 + r: n = round(x / ln 2) is found in the low bits of x / ln 2 + round, which also carry the reference
//    and the bias; x - n ln 2 as head (exact, by the fused multiply-add) and low, what ln 2 itself lost to rounding.
template <class Vec>
struct Reduced {
  Vec power, head, low;  // 2^n, biased
};

template <class X, bool kTail, class Vec, class Round>
CROSSENT_INLINE Reduced<Vec> reduce(Vec x, Vec tail, Round round) {
  using Table = ExpTable<X>;
  const Vec rounded = fma<X>(x, broadcast<X>(kLog2e<X>), round);
  const Vec n = rounded - round;
  const Vec head = fma<X>(n, broadcast<X>(-Table::kLn2), x);
  const V<X> log_tail = broadcast<X>(-Table::kLn2Tail);
  Vec low = n * log_tail;
  if constexpr (kTail) low = fma<X>(n, log_tail, tail);
  return {shift_bits<X>(rounded, Table::kMantissaBits), head, low};
}

// 2. exp(r) = 1 + r + r^2 q(r).
template <class X, class Vec>
CROSSENT_INLINE Vec exp_q(Vec r, Vec square) {
  using Table = ExpTable<X>;
  constexpr unsigned kCount = sizeof(Table::q) / sizeof(X);
  const auto pair = [&](unsigned i) { return fma<X>(r, broadcast<X>(Table::q[i]), broadcast<X>(Table::q[i + 1])); };
  Vec q = pair(0);
#pragma GCC unroll 8
  for (unsigned i = 2; i + 1 < kCount; i += 2) q = fma<X>(q, square, pair(i));
  if constexpr (kCount % 2 == 1) q = fma<X>(q, r, broadcast<X>(Table::q[kCount - 1]));
  return q;
}

// The pieces of exp, 2^n (1 + head + rest), rest small beside head.
template <class Vec>
struct ExpPieces {
  Vec power, head, rest;
};

template <class X, class Vec>
CROSSENT_INLINE ExpPieces<Vec> pieces_of(Reduced<Vec> reduced) {
  const Vec r = reduced.head + reduced.low, square = r * r;
  return {reduced.power, reduced.head, fma<X>(square, exp_q<X>(r, square), reduced.low)};
}

template <class X, bool kTail, class Vec, class Round>
CROSSENT_INLINE ExpPieces<Vec> exp_pieces(Vec x, Vec tail, Round round) {
  return pieces_of<X>(reduce<X, kTail>(x, tail, round));
}

// An exponential, 2^n (1 + minus_one) = power (1 + minus_one); and the same as one rounded number beside them.
template <class Vec>
struct Expanded {
  Vec minus_one, power;
};
template <class Vec>
struct ExpTerm {
  Vec value, minus_one, power;
};

// The power that exp_term finds for a logit; larger logits have no smaller ones.
template <class X, class Vec>
CROSSENT_INLINE Vec power_of(Vec logit, const ExpConstants<X, Vec>& constants) {
  const Vec x = max<X>(constants.lowest, logit - constants.offset);
  return reduce<X, false>(x, Vec{}, constants.round).power;
}

// The first step for a logit (+ tail) relative to a reference. Logits so low that the result would not be a normal
// number are raised to one below 2^(5 - kExponentBias); nan gives nan.
template <class X, bool kShifted, bool kTail = false, class Vec, class Lanes>
CROSSENT_INLINE Reduced<Vec> reduce_logit(Vec logit, const ExpConstants<X, Lanes>& constants, Vec tail = Vec{}) {
  Vec x = logit;
  if constexpr (kShifted) x = x - constants.offset;
  return reduce<X, kTail>(max<X>(constants.lowest, x), tail, constants.round);
}

// The second step, and the third: exp(logit + tail) relative to the reference, times 2^kBias; the value is within 0.87
// ULP (float), measured, and power and minus_one within 0.44.
template <class X, class Vec>
CROSSENT_INLINE Expanded<Vec> expand(Reduced<Vec> reduced) {
  const ExpPieces<Vec> e = pieces_of<X>(reduced);
  return {e.head + e.rest, e.power};
}

template <class X, class Vec>
CROSSENT_INLINE ExpTerm<Vec> rounded(Expanded<Vec> expanded) {
  return {fma<X>(expanded.minus_one, expanded.power, expanded.power), expanded.minus_one, expanded.power};
}

template <class X, bool kShifted, bool kTail = false, class Vec, class Lanes>
CROSSENT_INLINE ExpTerm<Vec> exp_term(Vec logit, const ExpConstants<X, Lanes>& constants, Vec tail = Vec{}) {
  return rounded<X>(expand<X>(reduce_logit<X, kShifted, kTail>(logit, constants, tail)));
}

// use(k, term) for the terms of reduced_at(k), k < count: the steps of three neighbours in one turn, which do not wait
// for each other. The processor's schedulers hold little more than a hundred waiting instructions, and with one
// exponential after the other these are mostly ones that cannot start.
template <class X, class ReducedAt, class Use>
CROSSENT_INLINE void for_terms(int count, ReducedAt reduced_at, Use use) {
  if (count <= 0) return;
  auto expanded = expand<X>(reduced_at(0));
  if (count > 1) {
    auto reduced = reduced_at(1);
    for (int k = 2; k < count; ++k) {
      const auto next = reduced_at(k);
      use(k - 2, rounded<X>(expanded));
      expanded = expand<X>(reduced);
      reduced = next;
    }
    use(count - 2, rounded<X>(expanded));
    expanded = expand<X>(reduced);
  }
  use(count - 1, rounded<X>(expanded));
}

template <class X, bool kShifted, bool kTail = false>
CROSSENT_INLINE V<X> exp_biased(V<X> logit, const ExpConstants<X>& constants, V<X> tail = V<X>{}) {
  return exp_term<X, kShifted, kTail>(logit, constants, tail).value;
}

// exp(x + tail) for -700 < x <= 0 as a sum of two doubles, exact to 2^-54.8, measured.
struct DoublePair {
  V<double> head, tail;
};

CROSSENT_INLINE DoublePair exp_pair(V<double> x, V<double> tail) {
  using Table = ExpTable<double>;
  const auto e = exp_pieces<double, true>(x, tail, broadcast(Table::kRound + Table::kExponentBias));
  const V<double> minus_one = e.head + e.rest;
  const V<double> lost = (e.head - minus_one) + e.rest;
  const V<double> head = fma<double>(minus_one, e.power, e.power);
  return {head, fma<double>(minus_one, e.power, e.power - head) + lost * e.power};
}

// Whether kept exponentials may be multiplied by a factor's head and tail.
template <class X>
CROSSENT_INLINE bool is_ordinary(double factor) {
  const double size = factor < 0 ? -factor : factor;
  return (size >= ExpTable<X>::kSmallestFactor && size <= ExpTable<X>::kLargestFactor) || size == 0 || size != size;
}

// Else each one is scaled by itself, in double. Of a logit too low for a normal exponential nothing remains.
template <class X>
inline X scale_slowly(X kept, double factor) {
  constexpr X kVanished = sizeof(X) == 4 ? X(0x1p-120) : X(0x1p-1010);
  if (kept < kVanished) return static_cast<X>(factor * 0);
  return static_cast<X>(static_cast<double>(kept) * ExpTable<X>::kUnbias * factor);
}

}  // namespace
}  // namespace crossent
