// The floating-point environment of the core.
#pragma once

namespace crossent {
namespace {

// The default environment while it lives: a caller's flush-to-zero mode changes nothing.
class FloatMode {
 public:
#if defined(__SSE2__)
  FloatMode() : saved_(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(0x1f80); }
  ~FloatMode() { __builtin_ia32_ldmxcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FloatMode() : saved_(__builtin_aarch64_get_fpcr()) { __builtin_aarch64_set_fpcr(0); }
  ~FloatMode() { __builtin_aarch64_set_fpcr(saved_); }

 private:
  unsigned saved_;
#else
  FloatMode() {}
  ~FloatMode() {}
#endif
};

}  // namespace
}  // namespace crossent
