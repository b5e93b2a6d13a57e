// Measures the functions that every result is made of against long double, and prints for each the largest error in
// units of its last place and the largest relative error as a power of two:
//   g++ -O2 -std=gnu++17 -march=native -ffp-contract=off -Wno-psabi -I csrc tests/function_errors.cc && ./a.out
// ./a.out 31 tries every 31st float.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/log.h"
#include "kernels/logits.h"

using namespace crossent;

namespace {

struct Error {
  long double ulps = 0, relative = 0;

  // value: as a sum of numbers; last_place: of the result.
  void see(long double value, long double truth, long double last_place) {
    const long double off = std::fabs(value - truth);
    ulps = std::fmax(ulps, off / last_place);
    relative = std::fmax(relative, off / std::fabs(truth));
  }
  void print(const char* name) const { std::printf("%-28s %7.3Lf ULP  2^%.1Lf\n", name, ulps, std::log2(relative)); }
};

template <class X>
X last_place(X x) {
  return std::nextafter(std::fabs(x), kInfinity<X>) - std::fabs(x);
}

// The steps between samples are no simple fraction of anything: low bits of all kinds occur.
constexpr double kStep = 0x1.9e3779b97f4a7p-19;

// An exponential, and the same together with what its rounding took.
struct ExpErrors {
  Error value, whole;

  void print(const char* name, const char* name_of_whole) const {
    value.print(name);
    whole.print(name_of_whole);
  }
};

// The float so many places above a negative one.
float above(float x, int places) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits -= places;
  std::memcpy(&x, &bits, sizeof bits);
  return x;
}

// exp of every so many-th float in [low, high), below 0, or of samples of the doubles there.
template <class X>
ExpErrors of_exp(X low, X high, int every) {
  ExpErrors errors;
  const ExpConstants<X> constants(Reference<X>{});
  X x[kLanes<X>];
  for (X next = low; next < high;) {
    for (X& lane : x) {
      lane = next;
      if constexpr (sizeof(X) == 4) {
        next = above(next, every);
      } else {
        next += kStep;
      }
    }
    const ExpTerm<V<X>> term = exp_term<X, false>(load(x), constants);
    for (int i = 0; i < kLanes<X>; ++i) {
      const long double truth = std::exp(static_cast<long double>(x[i]));
      const long double unbias = ExpTable<X>::kUnbias, last = last_place(static_cast<X>(truth));
      errors.value.see(term.value[i] * unbias, truth, last);
      const long double power = term.power[i] * unbias;
      errors.whole.see(power + power * term.minus_one[i], truth, last);
    }
  }
  return errors;
}

Error of_exp_pair() {
  Error error;
  for (double x = -600; x <= 0; x += 1000 * kStep) {
    const double tail = x * 0x1.3p-55;
    const DoublePair pair = exp_pair(broadcast(x), broadcast(tail));
    const long double truth = std::exp(static_cast<long double>(x)) * (1 + static_cast<long double>(tail));
    error.see(static_cast<long double>(pair.head[0]) + pair.tail[0], truth, last_place(static_cast<double>(truth)));
  }
  return error;
}

// In units of the last place of X, though the result is a double.
template <class X>
Error of_log1p() {
  constexpr double kEnd = sizeof(X) == 4 ? 80 : 700;
  Error error;
  for (double x = -kEnd; x < kEnd; x += 1000 * kStep) {
    const double w = std::exp(x);
    const long double truth = std::log1p(static_cast<long double>(w));
    error.see(log_ratio<X>(broadcast(1.0), broadcast(w))[0], truth, last_place(static_cast<X>(truth)));
  }
  return error;
}

struct CapErrors {
  Error u, slope;
};

// u of a softcap as head and tail, and du/da = sech^2 = 4 / (e^x + e^-x)^2.
CapErrors of_softcap(double softcap) {
  CapErrors errors;
  for (double a = 1e-3; a < 600; a += 300 * kStep) {
    const Capped capped = cap_logit(broadcast(a), V<double>{}, softcap, 1.0);
    const long double x = static_cast<long double>(a) / softcap;
    const long double u = softcap * std::tanh(x);
    const long double half = std::exp(-x), slope = std::pow(2 * half / (1 + half * half), 2);
    errors.u.see(static_cast<long double>(capped.u[0]) + capped.tail[0], u, last_place(static_cast<double>(u)));
    errors.slope.see(capped.slope[0], slope, last_place(static_cast<double>(slope)));
  }
  return errors;
}

}  // namespace

int main(int count, char** arguments) {
  const int every = count > 1 ? std::atoi(arguments[1]) : 1;
  of_exp<float>(-87.0f, -0x1p-3f, every).print("exp, float", "exp, float, and its rest");
  of_exp<double>(-25.0, 20.0, every).print("exp, double", "exp, double, and its rest");
  of_exp_pair().print("exp as two doubles");
  of_log1p<double>().print("log(1 + w), for doubles");
  of_log1p<float>().print("log(1 + w), for floats");
  for (const double softcap : {2.0, 30.0}) {
    const CapErrors errors = of_softcap(softcap);
    errors.u.print(softcap == 2 ? "softcap 2, u with its tail" : "softcap 30, u with its tail");
    errors.slope.print(softcap == 2 ? "softcap 2, du/da" : "softcap 30, du/da");
  }
}
