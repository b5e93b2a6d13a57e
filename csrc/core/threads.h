// A small pool of threads of our own, for callers that bring none.
#pragma once

#include <cstdint>

namespace crossent {

// Runs body(context, begin, end) over pieces of [0, count) on the pool and the calling thread; returns when all are
// done. Safe from many threads at once (one uses the pool, the others run alone) and after fork.
void parallel_for(int64_t count, void (*body)(void*, int64_t begin, int64_t end), void* context);

// Calls body(begin, end) in the same way for pieces of [0, count) that begin at multiples of `piece`.
template <class Body>
void in_pieces(int64_t count, int64_t piece, const Body& body) {
  const auto run = [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) body(i * piece, (i + 1) * piece < count ? (i + 1) * piece : count);
  };
  const int64_t pieces = (count + piece - 1) / piece;
  if (pieces <= 1) return run(0, pieces);
  parallel_for(
      pieces,
      [](void* context, int64_t first, int64_t last) { (*static_cast<const decltype(run)*>(context))(first, last); },
      const_cast<void*>(static_cast<const void*>(&run)));
}

// Nanoseconds of work below which the pool wakes too late to be of use.
constexpr double kWorthwhile = 1e5;

// How many threads a call may use, the caller's included. At first CROSSENT_NUM_THREADS, else the CPUs this process may
// run on.
int get_num_threads();
void set_num_threads(int count);

}  // namespace crossent
