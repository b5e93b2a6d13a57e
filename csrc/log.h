// The one logarithm, in double: of a sum that is at least about one half, or of one plus a number however small.
#pragma once

#include "exp.h"

namespace crossent {
namespace {

// log(1 + f) = f - s (f - R(s^2)), s = f / (2 + f), R minimax: 2^-59.5. Coefficients of R / s^2, highest first.
constexpr double kLogR[] = {0.14796329990777484801, 0.15314029530422147745, 0.18183564380281438954,
                            0.22222198589828450609, 0.28571428742008097817, 0.39999999999417719848,
                            0.66666666666667336381};

// log(sum + tail) for a normal sum >= 1/2 and a tail below its last place; about 1 ULP.
CROSSENT_INLINE V<double> log_of(V<double> sum, V<double> tail) {
  constexpr int64_t kSqrtHalf = 0x3fe6a09e667f3bcd, kOne = 1023;
  const auto bits = bit_cast<V<int64_t>>(sum);
  const auto k_bits = (bits - kSqrtHalf) >> 52;
  const V<double> f = bit_cast<V<double>>(bits - (k_bits << 52)) - 1.0;
  const V<double> round = broadcast<double>(ExpTable<double>::kRound);
  const V<double> k = bit_cast<V<double>>(bit_cast<V<int64_t>>(round) + k_bits) - round;
  const V<double> s = f / (2.0 + f);
  const V<double> z = s * s;
  V<double> r = broadcast<double>(kLogR[0]);
#pragma GCC unroll 8
  for (int i = 1; i < 7; ++i) r = fma<double>(r, z, broadcast<double>(kLogR[i]));
  // tail / sum, of which the first digits are enough: 1 / (1 + f) is about 1 - f + f^2.
  const V<double> scaled = tail * bit_cast<V<double>>((kOne - k_bits) << 52);
  const V<double> rest = k * ExpTable<double>::kLn2Tail + fma<double>(scaled, f * (f - 1.0), scaled);
  return fma<double>(k, broadcast<double>(ExpTable<double>::kLn2), f - (s * (f - z * r) - rest));
}

// 1 + w for w >= 0 as a sum and what rounding took from it.
struct OnePlus {
  V<double> sum, tail;
};

CROSSENT_INLINE OnePlus one_plus(V<double> w) {
  const V<double> one = broadcast<double>(1.0);
  const V<double> sum = one + w;
  const V<double> lost = w < one ? w - (sum - one) : one - (sum - w);
  return {sum, sum < kInfinity<double> ? lost : V<double>{}};
}

}  // namespace
}  // namespace crossent
