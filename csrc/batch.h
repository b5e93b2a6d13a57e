// Several vectors in step: every operation goes to all of them before the next one. The processor's schedulers hold
// little more than a hundred waiting instructions; one exponential after the other fills them with what cannot start.
#pragma once

#include "simd.h"

namespace crossent {
namespace {

// Two vectors, or two pairs of them. (Members, not an array: those the compiler keeps in registers.)
template <class Half>
struct Pair {
  Half low, high;
};

// As many vectors as leave registers for the constants.
template <class T, int bytes = kVectorBytes>
struct BatchOf {
  using type = Pair<V<T>>;
};
template <class T>
struct BatchOf<T, 64> {
  using type = Pair<Pair<V<T>>>;
};
template <class T>
using Batch = typename BatchOf<T>::type;
template <class T>
constexpr int kBatchLanes = static_cast<int>(sizeof(Batch<T>) / sizeof(T));

// The halves of an operand; one vector serves both.
template <class One>
CROSSENT_INLINE One low_of(One operand) {
  return operand;
}
template <class One>
CROSSENT_INLINE One high_of(One operand) {
  return operand;
}
template <class Half>
CROSSENT_INLINE Half low_of(Pair<Half> operand) {
  return operand.low;
}
template <class Half>
CROSSENT_INLINE Half high_of(Pair<Half> operand) {
  return operand.high;
}

template <class Half, class B>
CROSSENT_INLINE Pair<Half> operator+(Pair<Half> a, B b) {
  return {a.low + low_of(b), a.high + high_of(b)};
}
template <class Half, class B>
CROSSENT_INLINE Pair<Half> operator-(Pair<Half> a, B b) {
  return {a.low - low_of(b), a.high - high_of(b)};
}
template <class Half, class B>
CROSSENT_INLINE Pair<Half> operator*(Pair<Half> a, B b) {
  return {a.low * low_of(b), a.high * high_of(b)};
}
template <class T, class Half, class B, class C>
CROSSENT_INLINE Pair<Half> fma(Pair<Half> a, B b, C c) {
  return {fma<T>(a.low, low_of(b), low_of(c)), fma<T>(a.high, high_of(b), high_of(c))};
}
template <class T, class Half>
CROSSENT_INLINE Pair<Half> max(V<T> a, Pair<Half> b) {
  return {max<T>(a, b.low), max<T>(a, b.high)};
}

// The bits of each lane moved up.
template <class T>
CROSSENT_INLINE V<T> shift_bits(V<T> value, int places) {
  return bit_cast<V<T>>(bit_cast<V<Bits<T>>>(value) << places);
}
template <class T, class Half>
CROSSENT_INLINE Pair<Half> shift_bits(Pair<Half> value, int places) {
  return {shift_bits<T>(value.low, places), shift_bits<T>(value.high, places)};
}

// The sum of a batch's vectors.
template <class T>
CROSSENT_INLINE V<T> fold(V<T> value) {
  return value;
}
template <class T, class Half>
CROSSENT_INLINE V<T> fold(Pair<Half> value) {
  return fold<T>(value.low) + fold<T>(value.high);
}

template <class T>
CROSSENT_INLINE void load_into(V<T>& to, const T* from) {
  to = load(from);
}
template <class T, class Half>
CROSSENT_INLINE void load_into(Pair<Half>& to, const T* from) {
  load_into<T>(to.low, from);
  load_into<T>(to.high, from + sizeof(Half) / sizeof(T));
}
template <class T, class Half>
CROSSENT_INLINE void store(T* to, Pair<Half> value) {
  store<T>(to, value.low);
  store<T>(to + sizeof(Half) / sizeof(T), value.high);
}

}  // namespace
}  // namespace crossent
