#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <new>
#include <thread>

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
  const char* const text = std::getenv("CROSSENT_NUM_THREADS");
  const int wanted = text ? std::atoi(text) : 0;
  return wanted > 0 ? wanted : usable_cpus();
}

// One call's work: threads take pieces until none is left.
struct Work {
  void (*body)(void*, int64_t, int64_t);
  void* context;
  int64_t count;
  std::atomic<int64_t> next{0};

  void take_pieces() {
    for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) body(context, i, i + 1);
  }
};

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
  bool run(Work& work, int helpers) {
    const std::unique_lock<std::mutex> caller(callers_, std::try_to_lock);
    if (!caller.owns_lock()) return false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      start_threads(helpers);
      work_ = &work;
      wanted_ = helpers < static_cast<int>(helpers_.size()) ? helpers : static_cast<int>(helpers_.size());
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
  void start_threads(int helpers) {
    while (static_cast<int>(helpers_.size()) < helpers) {
      Helper& helper = helpers_.emplace_back();
      try {
        std::thread thread([this, &helper] { serve(helper); });
        helper.handle = thread.native_handle();
        thread.detach();
      } catch (...) {
        helpers_.pop_back();  // no thread to be had: fewer do the work
        return;
      }
    }
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
  int wanted_ = 0, active_ = 0;
};

std::atomic<int> thread_count{0};
std::atomic<Pool*> pool{nullptr};
std::mutex pool_mutex;

// A child of fork has none of its parent's threads: it starts a pool of its own when it needs one.
void forget_pool() {
  pool.store(nullptr);
  new (&pool_mutex) std::mutex;
}

Pool& the_pool() {
  if (Pool* const existing = pool.load(std::memory_order_acquire)) return *existing;
  const std::lock_guard<std::mutex> lock(pool_mutex);
  if (!pool.load()) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    (void)registered;
    pool.store(new Pool);  // never destroyed: its threads may outlive every static object
  }
  return *pool.load();
}

}  // namespace

int get_num_threads() {
  int count = thread_count.load(std::memory_order_relaxed);
  if (count == 0) thread_count.store(count = initial_threads());
  return count;
}

void set_num_threads(int count) { thread_count.store(count); }

void parallel_for(int64_t count, void (*body)(void*, int64_t, int64_t), void* context) {
  const int64_t threads = get_num_threads() < count ? get_num_threads() : count;
  Work work{body, context, count};
  if (threads < 2 || !the_pool().run(work, static_cast<int>(threads - 1))) work.take_pieces();
}

}  // namespace crossent
