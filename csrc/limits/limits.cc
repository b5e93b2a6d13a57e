#include "limits/limits.h"

#include <cstddef>

#include "kernels/simd.h"

namespace crossent {
namespace {

// How far ahead a pass over memory asks for it: processors stop looking ahead at the end of a page of 4 KiB.
constexpr int64_t kAhead = 4096;
constexpr int kTogether = 8;  // vectors in one turn of a loop: enough to hide what an addition takes

// Calls each(place, i) for every vector of as many whole turns as there are bytes for; returns where the rest begins.
template <class X, class Each>
CROSSENT_INLINE int64_t for_vectors(const char* data, int64_t bytes, const Each& each) {
  constexpr int64_t kStep = kTogether * kVectorBytes;
  int64_t at = 0;
  for (; at + kStep <= bytes; at += kStep) {
#pragma GCC unroll 8
    for (int i = 0; i < kTogether; ++i) {
      const char* const place = data + at + i * kVectorBytes;
      if (i * kVectorBytes % 64 == 0) __builtin_prefetch(place + kAhead);
      each(reinterpret_cast<const X*>(place), i);
    }
  }
  return at;
}

uint64_t read(const char* from, int64_t bytes) {
  V<uint64_t> sums[kTogether] = {};
  int64_t at =
      for_vectors<uint64_t>(from, bytes, [&](const uint64_t* place, int i) { sums[i] += load<uint64_t>(place); });
  for (int i = 1; i < kTogether; ++i) sums[0] += sums[i];
  uint64_t result = sum_of_lanes<uint64_t>(sums[0]);
  for (; at < bytes; ++at) result += static_cast<unsigned char>(from[at]);
  return result;
}

template <class X>
void scale(char* data, int64_t bytes, double factor) {
  typedef X Anywhere __attribute__((aligned(1), may_alias));
  const V<X> factors = broadcast<X>(static_cast<X>(factor));
  int64_t at = for_vectors<X>(data, bytes,
                              [&](const X* place, int) { store<X>(const_cast<X*>(place), load<X>(place) * factors); });
  for (; at + static_cast<int64_t>(sizeof(X)) <= bytes; at += sizeof(X)) {
    *reinterpret_cast<Anywhere*>(data + at) *= static_cast<X>(factor);
  }
}

void fill(char* to, int64_t bytes) {
  constexpr float one = 1;
  const V<float> ones = broadcast(one);
  int64_t at = 0;
  for (; at + kVectorBytes <= bytes; at += kVectorBytes) store<float>(reinterpret_cast<float*>(to + at), ones);
  __builtin_memcpy(to + at, &ones, static_cast<std::size_t>(bytes - at));
}

// exp(r) on |r| <= ln(2)/2, highest power first: degree 6 in float32, 11 in float64, both within 1 ULP.
template <class X>
struct Frozen;

template <>
struct Frozen<float> {
  static constexpr float kRound = 12582912.0f + 127.0f;  // 1.5 * 2^23 and the exponent's bias
  static constexpr int kMantissaBits = 23;
  static constexpr float kLn2 = 0.693147180559945309417f, kLn2Tail = -1.90465429995776804525e-9f;
  static constexpr float polynomial[] = {0.0013814174f, 0.0083689218f, 0.0416684079f, 0.1666651894f,
                                         0.4999999333f, 1.0f,          1.0f};
};

template <>
struct Frozen<double> {
  static constexpr double kRound = 6755399441055744.0 + 1023.0;  // 1.5 * 2^52
  static constexpr int kMantissaBits = 52;
  static constexpr double kLn2 = 0.693147180559945309417, kLn2Tail = 2.31904681384629955842e-17;
  static constexpr double polynomial[] = {2.5000061602835666699e-8,
                                          2.7630248379211443975e-7,
                                          2.7557586373840163694e-6,
                                          2.4801493098906550659e-5,
                                          1.9841269506578687653e-4,
                                          1.3888888943630112946e-3,
                                          8.3333333334944616641e-3,
                                          4.1666666666530158590e-2,
                                          1.6666666666666412523e-1,
                                          5.0000000000000106271e-1,
                                          1.0,
                                          1.0};
};

// Fused where the machine can; elsewhere a fused operation is a call, and no limit.
template <class X>
CROSSENT_INLINE V<X> times_plus(V<X> a, V<X> b, V<X> c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return fma<X>(a, b, c);
#else
  return a * b + c;
#endif
}

// 2^n (1 + r + ...), n = round(x / ln 2), r = x - n ln 2: for a float32 13 instructions with the load.
template <class X>
CROSSENT_INLINE V<X> frozen_exp(V<X> x) {
  using F = Frozen<X>;
  const V<X> rounded = times_plus<X>(x, broadcast<X>(static_cast<X>(1.44269504088896340736)), broadcast<X>(F::kRound));
  const V<X> n = rounded - broadcast<X>(F::kRound);
  V<X> r = times_plus<X>(n, broadcast<X>(-F::kLn2), x);
  r = times_plus<X>(n, broadcast<X>(-F::kLn2Tail), r);
  V<X> p = broadcast<X>(F::polynomial[0]);
#pragma GCC unroll 16
  for (unsigned i = 1; i < sizeof(F::polynomial) / sizeof(X); ++i)
    p = times_plus<X>(p, r, broadcast<X>(F::polynomial[i]));
  return p * bit_cast<V<X>>(bit_cast<V<Bits<X>>>(rounded) << F::kMantissaBits);
}

template <class X>
struct ExpBlock {
  static constexpr int64_t kCount = kExpBlockBytes / static_cast<int64_t>(sizeof(X));
  alignas(64) X values[kCount];

  ExpBlock() {
    for (int64_t i = 0; i < kCount; ++i) values[i] = static_cast<X>(-kExpSpan * static_cast<double>(i) / (kCount - 1));
  }
};

template <class X>
double exps(int64_t count) {
  constexpr int kAccumulators = 4;
  static const ExpBlock<X> block;
  double total = 0;
  for (int64_t done = 0; done < count;) {
    const int64_t most = count - done < block.kCount ? count - done : block.kCount;
    V<X> sums[kAccumulators] = {};
    for (int64_t at = 0; at < most; at += kAccumulators * kLanes<X>) {  // the last turn may do more than is asked for
#pragma GCC unroll 4
      for (int i = 0; i < kAccumulators; ++i) sums[i] += frozen_exp<X>(load<X>(block.values + at + i * kLanes<X>));
    }
    total += wide_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    done += most;
  }
  return total;
}

}  // namespace

namespace CROSSENT_SET {
extern const Limits limits;
const Limits limits = {read, {scale<float>, scale<double>}, fill, {exps<float>, exps<double>}};
}  // namespace CROSSENT_SET

}  // namespace crossent
