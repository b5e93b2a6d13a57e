// The one exponential: of whole vectors, kept biased by a power of two so that small results stay normal numbers.
#pragma once

#include "batch.h"

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

// The constants of exp_biased for one reference (row kernels: the same in all lanes).
template <class X>
struct ExpConstants {
  V<X> offset, round, lowest;

  explicit CROSSENT_INLINE ExpConstants(V<X> reference_offset, V<X> exponent) {
    using Table = ExpTable<X>;
    offset = reference_offset;
    round = broadcast<X>(Table::kRound + Table::kExponentBias + Table::kBias) - exponent;
    lowest = (exponent - broadcast<X>(Table::kExponentBias - 3 + Table::kBias)) * broadcast<X>(Table::kLn2);
  }
  explicit CROSSENT_INLINE ExpConstants(const Reference<X>& reference)
      : ExpConstants(broadcast<X>(reference.offset), broadcast<X>(reference.exponent)) {}
};

// The pieces of exp: 2^n (1 + head + rest).
//   1. n = round(x / ln 2), found in the low bits of x / ln 2 + round, which also carry the reference and the bias;
//   2. r = x - n ln 2 as head (exact, by the fused multiply-add) and tail;
//   3. rest = that tail + r^2 q(r), small beside the head.
template <class Vec>
struct ExpPieces {
  Vec power, head, rest;
};

// Vec: a vector of X, or a batch of them.
template <class X, bool kTail, class Vec>
CROSSENT_INLINE ExpPieces<Vec> exp_pieces(Vec x, Vec tail, V<X> round) {
  using Table = ExpTable<X>;
  const Vec rounded = fma<X>(x, broadcast<X>(kLog2e<X>), round);
  const Vec n = rounded - round;
  const Vec head = fma<X>(n, broadcast<X>(-Table::kLn2), x);
  const V<X> log_tail = broadcast<X>(-Table::kLn2Tail);
  Vec rest = n * log_tail;
  if constexpr (kTail) rest = fma<X>(n, log_tail, tail);
  const Vec r = head + rest;
  Vec q = fma<X>(r, broadcast<X>(Table::q[0]), broadcast<X>(Table::q[1]));
#pragma GCC unroll 16
  for (unsigned i = 2; i < sizeof(Table::q) / sizeof(X); ++i) q = fma<X>(q, r, broadcast<X>(Table::q[i]));
  return {shift_bits<X>(rounded, Table::kMantissaBits), head, fma<X>(r * r, q, rest)};
}

// An exponential, 2^n (1 + minus_one) = power (1 + minus_one), and the same as one rounded number.
template <class Vec>
struct ExpTerm {
  Vec value, minus_one, power;
};

// The power that exp_term finds for a logit; larger logits have no smaller ones.
template <class X>
CROSSENT_INLINE V<X> power_of(V<X> logit, const ExpConstants<X>& constants) {
  const V<X> x = max<X>(constants.lowest, logit - constants.offset);
  return exp_pieces<X, false>(x, V<X>{}, constants.round).power;
}

// exp(logit + tail) relative to a reference, times 2^kBias; the value is within 0.88 ULP (float), measured, and power
// and minus_one within 0.44. Logits so low that the result would not be a normal number give one below
// 2^(5 - kExponentBias) instead; nan gives nan.
template <class X, bool kShifted, bool kTail = false, class Vec>
CROSSENT_INLINE ExpTerm<Vec> exp_term(Vec logit, const ExpConstants<X>& constants, Vec tail = Vec{}) {
  Vec x = logit;
  if constexpr (kShifted) x = x - constants.offset;
  const ExpPieces<Vec> e = exp_pieces<X, kTail>(max<X>(constants.lowest, x), tail, constants.round);
  const Vec minus_one = e.head + e.rest;
  return {fma<X>(minus_one, e.power, e.power), minus_one, e.power};
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
