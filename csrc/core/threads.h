// A small pool of threads of our own, for callers that bring none.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>

#include "crossent.h"

namespace crossent {

// One call's work: each thread that takes part takes pieces until none is left.
class Work {
 public:
  Work(int64_t count, void (*body)(void*, int64_t, int64_t), void* context)
      : body_(body), context_(context), count_(count) {}

  void take_pieces() noexcept {
    const int64_t worker = workers_.fetch_add(1);
    try {
      for (int64_t i = next_.fetch_add(1); i < count_; i = next_.fetch_add(1)) body_(context_, worker, i);
    } catch (...) {
      if (!failed_.exchange(true)) exception_ = std::current_exception();
      next_.store(count_);  // what has not begun need not
    }
  }

  // When all threads are done: throws on what stopped one.
  void finish() {
    if (failed_) std::rethrow_exception(exception_);
  }

 private:
  void (*body_)(void*, int64_t worker, int64_t piece);
  void* context_;
  int64_t count_;
  std::atomic<int64_t> next_{0}, workers_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr exception_;
};

// The pool, with the calling thread. Safe from many threads at once (one uses the pool, the others run alone), after
// fork, and while the process ends.
extern const ParallelFor our_threads;

// How many threads a call may use, the caller's included. At first CROSSENT_NUM_THREADS, else the CPUs this process may
// run on. Throws std::invalid_argument where the environment does not say a number from 1 to kMostThreads.
constexpr int kMostThreads = 1024;
int get_num_threads();
void set_num_threads(int count);

}  // namespace crossent
