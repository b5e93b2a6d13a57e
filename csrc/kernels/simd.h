// Vectors of the machine's width over GCC/Clang vector extensions: one source for every instruction set.
// Everything here has internal linkage, so that no copy compiled for one instruction set can be linked for another.
#pragma once

#include <cstdint>
#include <limits>
#include <utility>

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define CROSSENT_INLINE inline __attribute__((always_inline))

namespace crossent {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T, int bytes = kVectorBytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
  typedef T unaligned __attribute__((vector_size(bytes), aligned(1), may_alias));
};
template <class T>
using V = typename VectorOf<T>::type;
template <class T>
using HalfV = typename VectorOf<T, kVectorBytes / 2>::type;
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <class T>
constexpr T kNan = std::numeric_limits<T>::quiet_NaN();

// The signed integer of a floating type's width.
template <class T>
struct BitsOf {
  using type = int32_t;
};
template <>
struct BitsOf<double> {
  using type = int64_t;
};
template <class T>
using Bits = typename BitsOf<T>::type;

template <class T>
CROSSENT_INLINE V<T> broadcast(T value) {
  return value - V<T>{};  // x - 0 is x, whatever its sign
}

template <class T>
CROSSENT_INLINE V<T> load(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(from);
}

template <class T>
CROSSENT_INLINE void store(T* to, V<T> value) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(to) = value;
}

// The first `count` lanes from memory and `fill` in the others; nothing beyond them is read.
template <class T>
CROSSENT_INLINE V<T> load_first(const T* from, int count, T fill) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return V<T>(_mm512_mask_loadu_ps(__m512(broadcast<T>(fill)), __mmask16((1u << count) - 1), from));
  } else {
    return V<T>(_mm512_mask_loadu_pd(__m512d(broadcast<T>(fill)), __mmask8((1u << count) - 1), from));
  }
#else
  V<T> result;
  for (int i = 0; i < kLanes<T>; ++i) {
    T value = fill;
    if (i < count) __builtin_memcpy(&value, from + i, sizeof(T));
    result[i] = value;
  }
  return result;
#endif
}

// Writes the first `count` lanes and nothing else.
template <class T>
CROSSENT_INLINE void store_first(T* to, V<T> value, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1), __m512(value));
  } else {
    _mm512_mask_storeu_pd(to, __mmask8((1u << count) - 1), __m512d(value));
  }
#else
  for (int i = 0; i < count; ++i) {
    const T lane = value[i];
    __builtin_memcpy(to + i, &lane, sizeof(T));
  }
#endif
}

// 0, 1, 2, ... in the integers of T's width.
template <class T>
CROSSENT_INLINE V<Bits<T>> lane_index() {
  V<Bits<T>> index;
  for (int i = 0; i < kLanes<T>; ++i) index[i] = i;
  return index;
}

CROSSENT_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
CROSSENT_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

// a * b + c, rounded once in every lane. Spelled out for each instruction set: a loop over lanes is left to the
// vectorizer's mood.
CROSSENT_INLINE V<float> fused(V<float> a, V<float> b, V<float> c) {
#if defined(__AVX512F__)
  return V<float>(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c)));
#elif defined(__FMA__)
  return V<float>(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
#elif defined(__aarch64__)
  return V<float>(vfmaq_f32(float32x4_t(c), float32x4_t(a), float32x4_t(b)));
#else
  return V<float>{fma(a[0], b[0], c[0]), fma(a[1], b[1], c[1]), fma(a[2], b[2], c[2]), fma(a[3], b[3], c[3])};
#endif
}

CROSSENT_INLINE V<double> fused(V<double> a, V<double> b, V<double> c) {
#if defined(__AVX512F__)
  return V<double>(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c)));
#elif defined(__FMA__)
  return V<double>(_mm256_fmadd_pd(__m256d(a), __m256d(b), __m256d(c)));
#elif defined(__aarch64__)
  return V<double>(vfmaq_f64(float64x2_t(c), float64x2_t(a), float64x2_t(b)));
#else
  return V<double>{fma(a[0], b[0], c[0]), fma(a[1], b[1], c[1])};
#endif
}

template <class T>
CROSSENT_INLINE V<T> fma(V<T> a, V<T> b, V<T> c) {
  return fused(a, b, c);
}

template <class To, class From>
CROSSENT_INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

// The larger of each lane: a nan in b is kept, one in a is not.
template <class T>
CROSSENT_INLINE V<T> max(V<T> a, V<T> b) {
  return a > b ? a : b;
}

template <class T, int bytes = kVectorBytes>
CROSSENT_INLINE T largest_lane(typename VectorOf<T, bytes>::type v) {
  if constexpr (bytes == 16) {
    T result = v[0];
    for (int i = 1; i < bytes / static_cast<int>(sizeof(T)); ++i) result = result > v[i] ? result : v[i];
    return result;
  } else {
    typename VectorOf<T, bytes / 2>::type halves[2];
    __builtin_memcpy(halves, &v, sizeof(v));
    return largest_lane<T, bytes / 2>(halves[0] > halves[1] ? halves[0] : halves[1]);
  }
}

// Whether a comparison holds in any lane.
template <class Mask>
CROSSENT_INLINE bool any_lane(Mask mask) {
  uint64_t parts[sizeof(mask) / 8], any = 0;
  __builtin_memcpy(parts, &mask, sizeof(mask));
  for (const uint64_t part : parts) any |= part;
  return any != 0;
}

template <class T, int bytes = kVectorBytes>
CROSSENT_INLINE T sum_of_lanes(typename VectorOf<T, bytes>::type v) {
  if constexpr (bytes == 16) {
    T result = v[0];
    for (int i = 1; i < bytes / static_cast<int>(sizeof(T)); ++i) result += v[i];
    return result;
  } else {
    using Half = typename VectorOf<T, bytes / 2>::type;
    Half halves[2];
    __builtin_memcpy(halves, &v, sizeof(v));
    return sum_of_lanes<T, bytes / 2>(halves[0] + halves[1]);
  }
}

// Half a float vector, as doubles, and back. Spelled out: the compiler's own conversion goes by quarters.
CROSSENT_INLINE V<double> to_doubles(HalfV<float> v) {
#if defined(__AVX512F__)
  return V<double>(_mm512_cvtps_pd(__m256(v)));
#elif defined(__AVX2__)
  return V<double>(_mm256_cvtps_pd(__m128(v)));
#else
  return __builtin_convertvector(v, V<double>);
#endif
}

CROSSENT_INLINE HalfV<float> to_floats(V<double> v) {
#if defined(__AVX512F__)
  return HalfV<float>(_mm512_cvtpd_ps(__m512d(v)));
#elif defined(__AVX2__)
  return HalfV<float>(_mm256_cvtpd_ps(__m256d(v)));
#else
  return __builtin_convertvector(v, HalfV<float>);
#endif
}

template <int... i>
CROSSENT_INLINE HalfV<float> half_of(V<float> v, int which, std::integer_sequence<int, i...>) {
  constexpr int kHalf = kLanes<float> / 2;
  return which ? __builtin_shufflevector(v, v, (kHalf + i)...) : __builtin_shufflevector(v, v, i...);
}

template <int... i>
CROSSENT_INLINE V<float> join_halves(HalfV<float> low, HalfV<float> high, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(low, high, i...);
}

// The lower (which = 0) or upper half of a float vector, as doubles.
CROSSENT_INLINE V<double> widen(V<float> v, int which) {
  return to_doubles(half_of(v, which, std::make_integer_sequence<int, kLanes<float> / 2>{}));
}

// Part of a vector as doubles: a half of floats, or the whole of doubles.
CROSSENT_INLINE V<double> to_wide(V<float> v, int which) { return widen(v, which); }
CROSSENT_INLINE V<double> to_wide(V<double> v, int) { return v; }

CROSSENT_INLINE V<float> narrow(V<double> low, V<double> high) {
  return join_halves(to_floats(low), to_floats(high), std::make_integer_sequence<int, kLanes<float>>{});
}

// The sum of all lanes, in double.
CROSSENT_INLINE double wide_sum(V<float> v) { return sum_of_lanes<double>(widen(v, 0) + widen(v, 1)); }
CROSSENT_INLINE double wide_sum(V<double> v) { return sum_of_lanes<double>(v); }

// Transpositions, of pieces that one cheap instruction each can move: within lanes of 16 bytes, then of whole such
// lanes.
template <class T>
constexpr int kLaneElements = 16 / static_cast<int>(sizeof(T));

// Of every 16 bytes of a and b the first (or second) halves, element by element in turn.
template <class T, bool second, int... i>
CROSSENT_INLINE V<T> interleave(V<T> a, V<T> b, std::integer_sequence<int, i...>) {
  constexpr int e = kLaneElements<T>;
  return __builtin_shufflevector(a, b, (i / e * e + i % e / 2 + (second ? e / 2 : 0) + i % 2 * kLanes<T>)...);
}

// Of a and then b every other 16 bytes, from the first or second on.
template <class T, bool second, int... i>
CROSSENT_INLINE V<T> deal(V<T> a, V<T> b, std::integer_sequence<int, i...>) {
  constexpr int e = kLaneElements<T>;
  return __builtin_shufflevector(a, b, ((2 * (i / e) + (second ? 1 : 0)) * e + i % e)...);
}

template <class T>
CROSSENT_INLINE void transpose(V<T> (&rows)[kLanes<T>]) {
  constexpr int W = kLanes<T>, e = kLaneElements<T>;
  using Index = std::make_integer_sequence<int, W>;
  V<T> next[W];
#pragma GCC unroll 2
  for (int step = e; step > 1; step /= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < W / 2; ++i) {
      const int from = i / (e / 2) * e + i % (e / 2), to = i / (e / 2) * e + i % (e / 2) * 2;
      next[to] = interleave<T, false>(rows[from], rows[from + e / 2], Index{});
      next[to + 1] = interleave<T, true>(rows[from], rows[from + e / 2], Index{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) rows[i] = next[i];
  }
#pragma GCC unroll 2
  for (int step = W / e; step > 1; step /= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < W / 2; ++i) {
      const int from = i / e * 2 * e + i % e;
      next[i] = deal<T, false>(rows[from], rows[from + e], Index{});
      next[i + W / 2] = deal<T, true>(rows[from], rows[from + e], Index{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) rows[i] = next[i];
  }
}

}  // namespace
}  // namespace crossent
