// Elements in and out of strided arrays of any type and byte order: a block at a time, through a small buffer.
// A block that already is contiguous numbers of the computing type X is used where it lies.
#pragma once

#include <type_traits>

#include "core/crossent.h"
#include "simd.h"

namespace crossent {
namespace {

constexpr int kBlockBytes = 4096;  // of numbers: a block stays in L1 between its maximum and its exponentials
template <class X>
constexpr int kBlock = kBlockBytes / static_cast<int>(sizeof(X));

CROSSENT_INLINE float from_bfloat16(uint16_t bits) { return bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Rounds to nearest, ties to even; a nan stays one.
CROSSENT_INLINE uint16_t to_bfloat16(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
}

CROSSENT_INLINE float from_float16(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
  const float scaled = bit_cast<float>(magnitude) * 0x1p112f;  // subnormal halves become normal here
  const uint32_t special = magnitude >= 0x0f800000 ? 0x7f800000 : 0;
  return bit_cast<float>(bit_cast<uint32_t>(scaled) | special | static_cast<uint32_t>(half & 0x8000) << 16);
}

// Rounds to nearest, ties to even, subnormal halves too; overflow gives infinity.
CROSSENT_INLINE uint16_t to_float16(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffff;
  // Adding a power of two whose last place is the result's leaves the rounded mantissa in the low bits.
  const uint32_t normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13;
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) & 0x7ff;
  uint32_t result = magnitude < 0x38800000 ? subnormal : normal;
  result = magnitude >= 0x477ff000 ? 0x7c00 : result;
  result = magnitude > 0x7f800000 ? 0x7e00 : result;
  return static_cast<uint16_t>(result | (bits >> 16 & 0x8000));
}

// A half number in memory.
template <Type type>
struct Half {
  uint16_t bits;
};

template <Type type>
CROSSENT_INLINE float widened(Half<type> half) {
  return type == Type::float16 ? from_float16(half.bits) : from_bfloat16(half.bits);
}
template <class Number>
CROSSENT_INLINE Number widened(Number number) {
  return number;
}

// A vector of halves as floats; of the first `count`, and 0. Spelled out for each instruction set, as in simd.h.
template <Type type>
CROSSENT_INLINE V<float> load_halves(const Half<type>* from) {
#if defined(__AVX512F__)
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  if constexpr (type == Type::float16) return V<float>(_mm512_cvtph_ps(halves));
  return bit_cast<V<float>>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
#elif defined(__F16C__) && defined(__AVX2__)
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  if constexpr (type == Type::float16) return V<float>(_mm256_cvtph_ps(halves));
  return bit_cast<V<float>>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
#else
  Half<type> halves[kLanes<float>];
  __builtin_memcpy(halves, from, sizeof(halves));
  V<float> numbers;
  for (int i = 0; i < kLanes<float>; ++i) numbers[i] = widened(halves[i]);
  return numbers;
#endif
}

template <Type type>
CROSSENT_INLINE V<float> load_first_halves(const Half<type>* from, int count) {
  alignas(64) Half<type> first[kLanes<float>] = {};
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  const __m256i halves = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1), from);
  __builtin_memcpy(first, &halves, sizeof(first));
#else
  for (int i = 0; i < count; ++i) __builtin_memcpy(first + i, from + i, sizeof(first[i]));
#endif
  return load_halves(first);
}

// Numbers of the computing type X, which lie in memory as such or as halves.
template <class X, class From>
CROSSENT_INLINE V<X> load_as(const From* from) {
  if constexpr (std::is_same_v<From, X>) {
    return load(from);
  } else {
    return load_halves(from);
  }
}

// The first `count` of them, and `fill` in the other lanes.
template <class X, class From>
CROSSENT_INLINE V<X> load_first_as(const From* from, int count, X fill) {
  if constexpr (std::is_same_v<From, X>) {
    return load_first(from, count, fill);
  } else {
    return lane_index<X>() < count ? load_first_halves(from, count) : broadcast(fill);
  }
}

// Contiguous half numbers to floats and back. A block is not needed again: the memory after it is asked for.
template <Type type>
void widen_halves(const char* from, int count, float* to) {
  constexpr int W = kLanes<float>;
  for (int at = 0; at < 2 * count; at += 64) __builtin_prefetch(from + 2 * count + at);
  const auto* const halves = reinterpret_cast<const Half<type>*>(from);
  int i = 0;
  for (; i + W <= count; i += W) store(to + i, load_halves(halves + i));
  if (i < count) store_first(to + i, load_first_as(halves + i, count - i, 0.0f), count - i);
}

template <Type type>
void narrow_to_halves(const float* from, int count, char* to) {
  for (int at = 0; at < 2 * count; at += 64) __builtin_prefetch(to + 2 * count + at, 1);
  int i = 0;
#if defined(__F16C__)
  if constexpr (type == Type::float16) {
    for (; i + 8 <= count; i += 8) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
    }
  }
#endif
  if constexpr (type == Type::bfloat16) {
    for (; i + kLanes<float> <= count; i += kLanes<float>) {
      const auto bits = bit_cast<VectorOf<uint32_t>::type>(load(from + i));
      const auto rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
      const auto halves = (bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded;
#if defined(__AVX512F__)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * i), _mm512_cvtepi32_epi16(__m512i(halves)));
#else
      const auto words = __builtin_convertvector(halves, VectorOf<uint16_t, kVectorBytes / 2>::type);
      __builtin_memcpy(to + 2 * i, &words, sizeof(words));
#endif
    }
  }
  for (; i < count; ++i) {
    const uint16_t bits = type == Type::float16 ? to_float16(from[i]) : to_bfloat16(from[i]);
    __builtin_memcpy(to + 2 * i, &bits, 2);
  }
}

// The unsigned integer that holds an element's bytes in this machine's order.
template <class Word>
CROSSENT_INLINE Word word_at(const char* at, bool swapped) {
  Word word;
  __builtin_memcpy(&word, at, sizeof(word));
  if (!swapped) return word;
  if constexpr (sizeof(Word) == 8) return __builtin_bswap64(word);
  if constexpr (sizeof(Word) == 4) return __builtin_bswap32(word);
  if constexpr (sizeof(Word) == 2) return __builtin_bswap16(word);
  return word;
}

// That integer for an element of a type.
template <class Number>
using WordOf = std::conditional_t<
    sizeof(Number) == 8, uint64_t,
    std::conditional_t<sizeof(Number) == 4, uint32_t, std::conditional_t<sizeof(Number) == 2, uint16_t, uint8_t>>>;

// Calls use(a number of the C++ type that holds an element, halves as Half<type>).
template <class Use>
CROSSENT_INLINE auto with_type(Type type, Use use) {
  switch (type) {
    case Type::float64:
      return use(double{});
    case Type::float32:
      return use(float{});
    case Type::float16:
      return use(Half<Type::float16>{});
    case Type::bfloat16:
      return use(Half<Type::bfloat16>{});
    case Type::int64:
      return use(int64_t{});
    case Type::int32:
      return use(int32_t{});
    case Type::int16:
      return use(int16_t{});
    case Type::int8:
      return use(int8_t{});
    case Type::uint64:
      return use(uint64_t{});
    case Type::uint32:
      return use(uint32_t{});
    case Type::uint16:
      return use(uint16_t{});
    case Type::uint8:
      return use(uint8_t{});
    case Type::boolean:
      return use(bool{});
  }
  __builtin_unreachable();
}

inline double element(const Array& array, const char* at) {
  return with_type(array.type, [&](auto number) {
    using Number = decltype(number);
    if constexpr (std::is_same_v<Number, bool>) {
      return *at != 0 ? 1.0 : 0.0;
    } else {
      return static_cast<double>(widened(bit_cast<Number>(word_at<WordOf<Number>>(at, array.swapped))));
    }
  });
}

// A number as an element of a type.
template <class Number>
CROSSENT_INLINE Number rounded_to(double value) {
  if constexpr (std::is_same_v<Number, Half<Type::float16>>) return {to_float16(static_cast<float>(value))};
  if constexpr (std::is_same_v<Number, Half<Type::bfloat16>>) return {to_bfloat16(static_cast<float>(value))};
  if constexpr (std::is_arithmetic_v<Number>) return static_cast<Number>(value);
}

// Writes one element in this machine's byte order or the other.
inline void set_element(const Array& array, char* at, double value) {
  with_type(array.type, [&](auto number) {
    using Word = WordOf<decltype(number)>;
    const Word word = bit_cast<Word>(rounded_to<decltype(number)>(value));
    const Word ordered = word_at<Word>(reinterpret_cast<const char*>(&word), array.swapped);
    __builtin_memcpy(at, &ordered, sizeof(ordered));
  });
}

// What an index target is read as where it is no class.
constexpr int64_t kIgnored = -1, kBad = -2;

// Index targets, `stride` bytes apart, as classes, kIgnored or kBad. They are compared by value, before any cast.
template <class Integer, bool kContiguous>
void read_integers_at(const Problem& problem, const char* first, int64_t stride, int count, int64_t* to) {
  using Word = std::make_unsigned_t<Integer>;
  constexpr bool kUnsigned64 = sizeof(Integer) == 8 && Integer(-1) > Integer(0);
  const bool swapped = problem.targets.swapped;
  const int64_t classes = problem.classes;
  // What no target equals where nothing is ignored: a value past the classes stays past them.
  const Options& options = problem.options;
  const bool ignores = options.ignores && (kUnsigned64 || !options.ignore_is_unsigned);
  const int64_t ignored = ignores ? options.ignore_index : 0;
  for (int i = 0; i < count; ++i) {
    const char* const at = first + i * (kContiguous ? static_cast<int64_t>(sizeof(Integer)) : stride);
    const int64_t value = static_cast<int64_t>(static_cast<Integer>(word_at<Word>(at, !kContiguous && swapped)));
    const bool beyond = kUnsigned64 && value < 0;  // more than int64 holds
    const bool matches = ignores & (value == ignored) & (!kUnsigned64 | (beyond == options.ignore_is_unsigned));
    const int64_t valid = static_cast<uint64_t>(value) < static_cast<uint64_t>(classes) ? value : kBad;
    to[i] = matches ? kIgnored : valid;
  }
}

inline void read_index_targets(const Problem& problem, const char* first, int64_t stride, int count, int64_t* to) {
  with_type(problem.targets.type, [&](auto number) {
    using Integer = decltype(number);
    if constexpr (std::is_integral_v<Integer> && !std::is_same_v<Integer, bool>) {
      const bool contiguous = stride == static_cast<int64_t>(sizeof(Integer)) && !problem.targets.swapped;
      const auto read = contiguous ? read_integers_at<Integer, true> : read_integers_at<Integer, false>;
      read(problem, first, stride, count, to);
    }
  });
}

template <class X>
constexpr Type kTypeOf = sizeof(X) == 4 ? Type::float32 : Type::float64;

// Elements that can be used where they lie, as X.
template <class X>
CROSSENT_INLINE bool is_native(const Array& array, const char* first, int64_t stride) {
  return stride == sizeof(X) && array.type == kTypeOf<X> && !array.swapped &&
         reinterpret_cast<uintptr_t>(first) % sizeof(X) == 0;
}

// Elements that can be read where they lie, as halves of a type.
template <Type type>
CROSSENT_INLINE bool is_halves(const Array& array, const char* first, int64_t stride) {
  return stride == 2 && array.type == type && !array.swapped && reinterpret_cast<uintptr_t>(first) % 2 == 0;
}

template <class X>
CROSSENT_INLINE const X* stage(const Array& array, const char* first, int64_t stride, int count, X* buffer);

// `count` elements, `stride` bytes apart, as contiguous X in `buffer`.
template <class X>
const X* convert(const Array& array, const char* first, int64_t stride, int count, X* buffer) {
  const bool contiguous = stride == size_of(array.type) && !array.swapped;
  if constexpr (sizeof(X) == 4) {
    if (contiguous && array.type == Type::bfloat16) {
      widen_halves<Type::bfloat16>(first, count, buffer);
      return buffer;
    }
    if (contiguous && array.type == Type::float16) {
      widen_halves<Type::float16>(first, count, buffer);
      return buffer;
    }
  } else if (contiguous &&
             (array.type == Type::float32 || array.type == Type::float16 || array.type == Type::bfloat16)) {
    float floats[kBlock<double>];
    const float* from = stage<float>(array, first, stride, count, floats);
    for (int i = 0; i < count; ++i) {
      float value;
      __builtin_memcpy(&value, from + i, 4);
      buffer[i] = value;
    }
    return buffer;
  }
  for (int i = 0; i < count; ++i) buffer[i] = static_cast<X>(element(array, first + i * stride));
  return buffer;
}

// The same, but where the elements lie if they are contiguous X already.
template <class X>
CROSSENT_INLINE const X* stage(const Array& array, const char* first, int64_t stride, int count, X* buffer) {
  if (is_native<X>(array, first, stride)) return reinterpret_cast<const X*>(first);
  return convert(array, first, stride, count, buffer);
}

// Writes `count` numbers, `stride` bytes apart.
template <class X>
void unstage(const Array& array, char* first, int64_t stride, int count, const X* from) {
  const bool contiguous = stride == size_of(array.type) && !array.swapped;
  if (contiguous && array.type == kTypeOf<X>) {
    __builtin_memcpy(first, from, static_cast<size_t>(count) * sizeof(X));
    return;
  }
  if constexpr (sizeof(X) == 4) {
    if (contiguous && array.type == Type::bfloat16) {
      return narrow_to_halves<Type::bfloat16>(from, count, first);
    }
    if (contiguous && array.type == Type::float16) {
      return narrow_to_halves<Type::float16>(from, count, first);
    }
  } else if (contiguous && array.type != Type::float64) {
    float floats[kBlock<double>];
    for (int i = 0; i < count; ++i) floats[i] = static_cast<float>(from[i]);
    return unstage<float>(array, first, stride, count, floats);
  }
  for (int i = 0; i < count; ++i) set_element(array, first + i * stride, from[i]);
}

}  // namespace
}  // namespace crossent
