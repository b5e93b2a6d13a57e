// The logits that the loss sees, in double: u = softcap * tanh(logit_scale * a / softcap), with what rounding took from
// u, and the derivatives of u that the chain rule needs.
#pragma once

#include "exp.h"
#include "stage.h"

namespace crossent {
namespace {

// tanh(q) = q + q z P(z), z = q^2 <= 1/16: P minimax, 2^-65. Highest power first.
constexpr double kTanhP[] = {0.00052757100573421183057, -0.0014487547644363071301, 0.0035916919448359230265,
                             -0.0088632198862366101288, 0.021869488208649638698,   -0.053968253964460339961,
                             0.13333333333331210872,    -0.3333333333333332929};

// A block of one row. Without tails the logits are u itself; without slopes du/da is logit_scale.
struct LogitBlock {
  alignas(64) double buffer[kBlock<double>];
  alignas(64) double tail_buffer[kBlock<double>];
  alignas(64) double slope[kBlock<double>];      // du/da
  alignas(64) double curvature[kBlock<double>];  // d2u/da2
  const double* logits = buffer;
  const double* tails = nullptr;
};

struct Capped {
  V<double> u, tail, slope, curvature;
};

// With D = 1 - tanh|q| = 2 E / (1 + E), E = exp(-2 |q|): tanh' = D (2 - D), never 1 - tanh^2. Each step keeps what it
// lost, since an error in u is an error in exp(u).
CROSSENT_INLINE Capped cap_logit(V<double> scaled, V<double> scaled_tail, double softcap, double logit_scale) {
  const V<double> cap = broadcast(softcap), one = broadcast(1.0);
  const auto negative = scaled < 0.0;
  const V<double> sign = negative ? -one : one;
  const V<double> size = scaled * sign, size_tail = scaled_tail * sign;
  // 1. q = size / softcap, at most 340: beyond it tanh is 1 to any precision.
  const V<double> ratio = size / cap;
  const auto inside = !(ratio > 340.0);
  const V<double> q = inside ? ratio : broadcast(340.0);
  const V<double> q_tail = inside ? (fma<double>(-q, cap, size) + size_tail) / cap : V<double>{};
  // 2. D and its tail.
  const DoublePair e = exp_pair(-2.0 * q, -2.0 * q_tail);
  const V<double> sum = one + e.head;
  const V<double> sum_tail = (one - sum) + e.head + e.tail;
  const V<double> d = 2.0 * e.head / sum;
  const V<double> d_tail = (fma<double>(-d, sum, 2.0 * e.head) + 2.0 * e.tail - d * sum_tail) / sum;
  // 3. u = softcap (1 - D), or size (1 + z P(z)) where 1 - D would cancel.
  const V<double> rest = one - d;
  const V<double> far = cap * rest;
  const V<double> far_tail = fma<double>(cap, rest, -far) + cap * ((one - rest - d) - d_tail);
  const V<double> z = q * q;
  V<double> p = broadcast(kTanhP[0]);
  for (int i = 1; i < 8; ++i) p = fma<double>(p, z, broadcast(kTanhP[i]));
  const V<double> bend = size * z * p;
  const V<double> near = size + bend;
  const V<double> near_tail = (size - near) + bend + size_tail;
  const auto small = z < 0.0625;
  const V<double> u = small ? near : far;
  const V<double> steepness = inside ? d * (2.0 - d) : V<double>{};
  return {sign * u, sign * (small ? near_tail : far_tail), logit_scale * steepness,
          sign * (u / cap) * steepness * (-2.0 * logit_scale * logit_scale / softcap)};
}

// Fills `block` with classes [at, at + count) of a row.
inline void stage_logits(const Problem& problem, const char* row, int64_t at, int count, LogitBlock& block) {
  const int64_t stride = problem.logits.class_stride;
  block.logits = stage(problem.logits, row + at * stride, stride, count, block.buffer);
  const double scale = problem.options.logit_scale;
  if (problem.options.softcap == 0 && scale == 1) return;
  for (int i = 0; i < count; i += kLanes<double>) {
    const int width = count - i < kLanes<double> ? count - i : kLanes<double>;
    const V<double> a = load_first(block.logits + i, width, 0.0);
    const V<double> scaled = a * scale;
    // Beyond kShiftFrom exponentials are of differences between logits as rounded: their tails would not match.
    const V<double> lost = fma<double>(a, broadcast(scale), -scaled);
    const auto exact = (scaled < kShiftFrom) & (scaled > -kShiftFrom);
    const V<double> tail = exact ? lost : V<double>{};
    Capped capped{scaled, tail, broadcast(scale), V<double>{}};
    if (problem.options.softcap != 0) capped = cap_logit(scaled, tail, problem.options.softcap, scale);
    store(block.buffer + i, capped.u);
    store(block.tail_buffer + i, capped.tail);
    store(block.slope + i, capped.slope);
    store(block.curvature + i, capped.curvature);
  }
  block.logits = block.buffer;
  block.tails = block.tail_buffer;
}

}  // namespace
}  // namespace crossent
