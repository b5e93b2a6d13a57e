// The one logarithm, in double: of a ratio near one or far from it, from the difference that would cancel.
#pragma once

#include "exp.h"

namespace crossent {
namespace {

// log((1 + s) / (1 - s)) = 2 s (1 + z R(z)), z = s^2 <= 0.04, R minimax: the result is exact to 2^-35 for float
// problems and to 2^-62. Coefficients of R, highest first.
template <class X>
struct LogTable;

template <>
struct LogTable<float> {
  static constexpr double r[] = {0.12061675211327478047, 0.14252723718982462045, 0.20000447217980767043,
                                 0.33333331454814046513};
};

template <>
struct LogTable<double> {
  static constexpr double r[] = {0.069335660242462342303, 0.065849947580241904787, 0.076956650513086474092,
                                 0.090908295373686241595, 0.1111111220618747657,   0.14285714277389047779,
                                 0.20000000000030579546,  0.3333333333333329496};
};

// log((own + others) / own) for a normal own > 0 and others > -own / 2: log1p(others / own) where others are small.
// 1. k = round(log2(all / own)), nearly: from the difference of the bits, which are their logarithms piecewise linear;
// 2. s = (all - 2^k own) / (all + 2^k own), where k = 0 is others / (all + own): nothing cancels;
// 3. the result is k ln 2 + 2 s (1 + z R(z)).
template <class X>
CROSSENT_INLINE V<double> log_ratio(V<double> own, V<double> others) {
  using Table = ExpTable<double>;
  constexpr int kPlaces = Table::kMantissaBits;
  using Unsigned = VectorOf<uint64_t>::type;  // whose sums may leave their range, as those of a nan do
  constexpr uint64_t kHalf = uint64_t{1} << (kPlaces - 1), kOne = uint64_t{Table::kExponentBias} << kPlaces;
  const Unsigned apart = bit_cast<Unsigned>(own + others) - bit_cast<Unsigned>(own) + kHalf;
  const Unsigned k = bit_cast<Unsigned>(bit_cast<V<int64_t>>(apart) >> kPlaces);
  const V<double> round = broadcast<double>(Table::kRound);
  const V<double> powers = bit_cast<V<double>>(bit_cast<Unsigned>(round) + k) - round;
  const V<double> power = bit_cast<V<double>>((k << kPlaces) + kOne);
  const V<double> difference = fma<double>(own, 1.0 - power, others), sum = fma<double>(own, 1.0 + power, others);
  const V<double> s = difference / sum;
  const V<double> z = s * s, twice = s + s;
  V<double> r = broadcast<double>(LogTable<X>::r[0]);
#pragma GCC unroll 8
  for (unsigned i = 1; i < sizeof(LogTable<X>::r) / sizeof(double); ++i) {
    r = fma<double>(r, z, broadcast<double>(LogTable<X>::r[i]));
  }
  V<double> rest = fma<double>(twice * z, r, powers * Table::kLn2Tail);
  if constexpr (sizeof(X) == 8) {  // what sum and division lost
    const V<double> lost = others - (sum - own * (1.0 + power));
    rest += 2.0 * fma<double>(-s, lost, fma<double>(-s, sum, difference)) / sum;
  }
  return fma<double>(powers, broadcast<double>(Table::kLn2), twice + rest);
}

}  // namespace
}  // namespace crossent
