#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#include "environment.h"

namespace crossent {
namespace {

int usable_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count ? static_cast<int>(count) : 1;
}

int initial_threads() {
  constexpr const char* kName = "CROSSENT_NUM_THREADS";
  const char* const text = environment(kName);
  if (!text) return std::min(usable_cpus(), kMostThreads);
  const char* const end = text + std::strlen(text);
  int count = 0;
  const std::from_chars_result read = std::from_chars(text, end, count);
  if (read.ec == std::errc() && read.ptr == end && count >= 1 && count <= kMostThreads) return count;
  throw std::invalid_argument(quoted(kName, text) + " must be an integer from 1 to " + std::to_string(kMostThreads) +
                              ", or unset");
}

int current_cpu() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// A thread of the pool, and the processor that it was last seen on.
struct Helper {
  std::thread::native_handle_type handle{};
  int cpu = -1;

  // A sleeping thread wakes where it slept. If its caller is at work there by now it waits until that is done, and next
  // time too: it may wake anywhere else.
  void leave(int callers_cpu) {
#if defined(__linux__)
    if (cpu != callers_cpu || cpu < 0) return;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return;
    CPU_CLR(callers_cpu, &set);
    if (CPU_COUNT(&set) > 0) pthread_setaffinity_np(handle, sizeof(set), &set);
#else
    (void)callers_cpu;
#endif
  }
};

class Pool {
 public:
  // False if another caller is using the pool.
  bool run(Work& work, int64_t helpers) {
    const std::unique_lock<std::mutex> caller(callers_, std::try_to_lock);
    if (!caller.owns_lock()) return false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      start_threads(helpers);
      work_ = &work;
      wanted_ = std::min(helpers, static_cast<int64_t>(helpers_.size()));
      const int here = current_cpu();
      for (Helper& helper : helpers_) helper.leave(here);
    }
    wake_.notify_all();
    work.take_pieces();
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = 0;  // who has not begun need not
    work_ = nullptr;
    idle_.wait(lock, [&] { return active_ == 0; });
    return true;
  }

 private:
  // Where no more threads are to be had, fewer do the work.
  void start_threads(int64_t helpers) {
    while (static_cast<int64_t>(helpers_.size()) < helpers && start_thread()) {
    }
  }

  bool start_thread() {
    try {
      helpers_.emplace_back();
    } catch (const std::bad_alloc&) {
      return false;
    }
    Helper& helper = helpers_.back();
    try {
      std::thread thread([this, &helper] { serve(helper); });
      helper.handle = thread.native_handle();
      thread.detach();
    } catch (...) {  // memory, or the system's limit
      helpers_.pop_back();
      return false;
    }
    return true;
  }

  void serve(Helper& helper) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      while (wanted_ == 0) {
        helper.cpu = current_cpu();
        wake_.wait(lock);
      }
      --wanted_;
      ++active_;
      Work* const work = work_;
      lock.unlock();
      work->take_pieces();
      lock.lock();
      if (--active_ == 0) idle_.notify_all();
    }
  }

  std::mutex callers_, mutex_;
  std::condition_variable wake_, idle_;
  std::deque<Helper> helpers_;  // where they are: threads refer to them
  Work* work_ = nullptr;
  int64_t wanted_ = 0, active_ = 0;
};

std::atomic<int> thread_count{0};
std::atomic<Pool*> pool{nullptr};
std::mutex pool_mutex;

// A child of fork has none of its parent's threads: it starts a pool of its own when it needs one.
void forget_pool() {
  pool.store(nullptr);
  new (&pool_mutex) std::mutex;
}

// Null where there is no memory for one.
Pool* the_pool() {
  if (Pool* const existing = pool.load(std::memory_order_acquire)) return existing;
  const std::lock_guard<std::mutex> lock(pool_mutex);
  if (!pool.load()) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    (void)registered;
    pool.store(new (std::nothrow) Pool);  // never destroyed: its threads may outlive every static object
  }
  return pool.load();
}

void on_our_threads(int64_t count, int64_t workers, void (*body)(void*, int64_t, int64_t), void* context) {
  Work work(count, body, context);
  Pool* const helpers = workers > 1 ? the_pool() : nullptr;
  if (!helpers || !helpers->run(work, workers - 1)) work.take_pieces();
  work.finish();
}

}  // namespace

constexpr double kWorthwhile = 1e5;  // below, the pool wakes too late to be of use
const ParallelFor our_threads = {&on_our_threads, [] { return static_cast<int64_t>(get_num_threads()); }, kWorthwhile};

int get_num_threads() {
  int count = thread_count.load(std::memory_order_relaxed);
  if (count == 0) thread_count.store(count = initial_threads());
  return count;
}

void set_num_threads(int count) { thread_count.store(count); }

}  // namespace crossent
