// Two vectors in step: every operation goes to both before the next one.
#pragma once

#include "simd.h"

namespace crossent {
namespace {

// Members, not an array: those the compiler keeps in registers.
template <class Half>
struct Pair {
  Half low, high;
};

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
template <class T, class A, class Half>
CROSSENT_INLINE Pair<Half> max(A a, Pair<Half> b) {
  return {max<T>(low_of(a), b.low), max<T>(high_of(a), b.high)};
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

template <class T>
CROSSENT_INLINE Pair<V<T>> load_pair(const T* from) {
  return {load(from), load(from + kLanes<T>)};
}
template <class T>
CROSSENT_INLINE void store(T* to, Pair<V<T>> value) {
  store<T>(to, value.low);
  store<T>(to + kLanes<T>, value.high);
}

}  // namespace
}  // namespace crossent
