// A small pool of threads of our own, for callers that bring none.
#pragma once

#include <cstdint>

namespace crossent {

// Runs body(context, begin, end) over pieces of [0, count) on the pool and the calling thread; returns when all are
// done. Safe from many threads at once (one uses the pool, the others run alone) and after fork.
void parallel_for(int64_t count, void (*body)(void*, int64_t begin, int64_t end), void* context);

// Nanoseconds of work below which the pool wakes too late to be of use.
constexpr double kWorthwhile = 1e5;

// How many threads a call may use, the caller's included. At first CROSSENT_NUM_THREADS, else the CPUs this process may
// run on.
int get_num_threads();
void set_num_threads(int count);

}  // namespace crossent
