// Preloaded, it counts the calls of the system that touch a folder, and kills the process at the n-th, or fails it:
//   g++ -O1 -shared -fPIC tests/failing_calls.cc -o failing_calls.so -ldl
// arm(folder, n, error) says which; error 0 kills. Of a write half is done first. seen() is how many there were.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

namespace {

char folder[PATH_MAX];
long fatal = -1, count = 0;
int error = 0;

template <class F>
F* real(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

bool is_inside(const char* path) { return path != nullptr && strncmp(path, folder, strlen(folder)) == 0; }

bool is_inside(int handle) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return false;
  path[length] = 0;
  return is_inside(path);
}

void die() {
  kill(getpid(), SIGKILL);
  pause();
}

// Whether this call is the one, and is to fail with errno set.
template <class Where>
bool is_fatal(Where where) {
  if (fatal < 0 || !is_inside(where) || count++ != fatal) return false;
  if (error == 0) die();
  errno = error;
  return true;
}

template <class Write>
ssize_t half(int handle, Write write) {
  if (fatal < 0 || !is_inside(handle) || count++ != fatal) return write(1);
  write(2);
  if (error == 0) die();
  errno = error;
  return -1;
}

}  // namespace

extern "C" {

void arm(const char* where, long n, int with) {
  strncpy(folder, where, sizeof folder - 1);
  fatal = n;
  error = with;
  count = 0;
}

long seen() { return count; }

#define OPEN(NAME)                                                     \
  int NAME(const char* path, int flags, ...) {                         \
    va_list more;                                                      \
    va_start(more, flags);                                             \
    const mode_t mode = va_arg(more, mode_t);                          \
    va_end(more);                                                      \
    if (is_fatal(path)) return -1;                                     \
    return real<int(const char*, int, ...)>(#NAME)(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define PATHS(NAME, PARAMETERS, ARGUMENTS, WHERE) \
  int NAME PARAMETERS { return is_fatal(WHERE) ? -1 : real<int PARAMETERS>(#NAME) ARGUMENTS; }
PATHS(link, (const char* from, const char* to), (from, to), to)
PATHS(linkat, (int a, const char* from, int b, const char* to, int flags), (a, from, b, to, flags), to)
PATHS(rename, (const char* from, const char* to), (from, to), to)
PATHS(renameat, (int a, const char* from, int b, const char* to), (a, from, b, to), to)
PATHS(unlink, (const char* path), (path), path)
PATHS(unlinkat, (int a, const char* path, int flags), (a, path, flags), path)
PATHS(fchmod, (int handle, mode_t mode), (handle, mode), handle)
PATHS(fsync, (int handle), (handle), handle)
PATHS(ftruncate, (int handle, off_t size), (handle, size), handle)
PATHS(ftruncate64, (int handle, off64_t size), (handle, size), handle)
PATHS(flock, (int handle, int operation), (handle, operation), handle)

// These give the error itself.
int posix_fallocate(int handle, off_t at, off_t size) {
  return is_fatal(handle) ? errno : real<int(int, off_t, off_t)>("posix_fallocate")(handle, at, size);
}
int posix_fallocate64(int handle, off64_t at, off64_t size) {
  return is_fatal(handle) ? errno : real<int(int, off64_t, off64_t)>("posix_fallocate64")(handle, at, size);
}

// A handle is closed even where closing fails.
int close(int handle) {
  const bool fails = is_fatal(handle);
  const int result = real<int(int)>("close")(handle);
  if (fails) errno = error;
  return fails ? -1 : result;
}

ssize_t write(int handle, const void* bytes, size_t size) {
  auto* function = real<ssize_t(int, const void*, size_t)>("write");
  return half(handle, [&](size_t part) { return function(handle, bytes, size / part); });
}
ssize_t pwrite(int handle, const void* bytes, size_t size, off_t at) {
  auto* function = real<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  return half(handle, [&](size_t part) { return function(handle, bytes, size / part, at); });
}
ssize_t pwrite64(int handle, const void* bytes, size_t size, off64_t at) {
  auto* function = real<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
  return half(handle, [&](size_t part) { return function(handle, bytes, size / part, at); });
}
}
