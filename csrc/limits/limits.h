// What this machine can do at most: bare loops that kernels are held against, compiled once for each instruction set.
// They are frozen: they share no arithmetic with the kernels, so that a better kernel does not move its own yardstick.
#pragma once

#include <cstdint>

namespace crossent {

// Each works on the calling thread alone. Memory may begin anywhere; `bytes` is any number. Of two the first is for
// float32, the other for float64.
struct Limits {
  uint64_t (*read)(const char* from, int64_t bytes);           // once, every byte; a value that depends on all
  void (*scale[2])(char* data, int64_t bytes, double factor);  // in place
  void (*fill)(char* to, int64_t bytes);                       // with the bytes of 1.0f
  // exp of `count` numbers of a block that stays in L1, evenly spaced on [-kExpSpan, 0]; returns their sum.
  double (*exps[2])(int64_t count);
};

constexpr double kExpSpan = 16;            // a logit is rarely further below its row's maximum
constexpr int64_t kExpBlockBytes = 16384;  // half of the smallest L1 that is common

}  // namespace crossent
