// Loaded before all else (LD_PRELOAD), makes one allocation fail: the n-th of at least so many bytes that code at
// watched addresses asks for. // Threads that cannot be started count as such.
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

std::atomic<uintptr_t> watched_begin{0}, watched_end{0};
std::atomic<size_t> least_bytes{0};
std::atomic<int64_t> countdown{0};  // at 1 the next one fails; 0 and less: none does

bool fails(void* caller, size_t bytes) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(caller);
  if (address < watched_begin || address >= watched_end || bytes < least_bytes) return false;
  return countdown.fetch_sub(1) == 1;
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// glibc's own names: dlsym itself allocates.
extern "C" void* __libc_malloc(size_t);
extern "C" void* __libc_calloc(size_t, size_t);
extern "C" void* __libc_realloc(void*, size_t);

void* allocate_or_throw(size_t bytes, void* caller) {
  void* const memory = fails(caller, bytes) ? nullptr : __libc_malloc(bytes ? bytes : 1);
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

#define CALLER __builtin_return_address(0)
#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void watch(uintptr_t begin, uintptr_t end, size_t least) {
  watched_begin = begin;
  watched_end = end;
  least_bytes = least;
}
EXPORTED void fail_allocation(int64_t n) { countdown = n; }
// Whether the one that was to fail has been asked for.
EXPORTED bool has_failed() { return countdown <= 0; }

EXPORTED void* malloc(size_t bytes) { return fails(CALLER, bytes) ? nullptr : __libc_malloc(bytes); }
EXPORTED void* calloc(size_t count, size_t bytes) {
  return fails(CALLER, count * bytes) ? nullptr : __libc_calloc(count, bytes);
}
EXPORTED void* realloc(void* memory, size_t bytes) {
  return fails(CALLER, bytes) ? nullptr : __libc_realloc(memory, bytes);
}
EXPORTED int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
  Dl_info caller;  // libstdc++, for C++: OpenBLAS, for one, waits for ever for threads that it does not get
  const bool of_cpp = dladdr(CALLER, &caller) && std::strstr(caller.dli_fname, "libstdc++");
  if (of_cpp && countdown.fetch_sub(1) == 1) return EAGAIN;
  return next<decltype(pthread_create)>("pthread_create")(thread, attributes, run, argument);
}

void* operator new(size_t bytes) { return allocate_or_throw(bytes, CALLER); }
void* operator new[](size_t bytes) { return allocate_or_throw(bytes, CALLER); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return fails(CALLER, bytes) ? nullptr : __libc_malloc(bytes ? bytes : 1);
}
