// Work without the interpreter's lock.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

namespace crossent {

// Takes the interpreter's lock back. Where the interpreter has ended meanwhile, this is a daemon thread that may not go
// on: Python ends it from within, which must not pass through C++ and what it holds. It sleeps until the process ends.
inline void take_lock(PyThreadState* thread) noexcept {
  try {
    PyEval_RestoreThread(thread);
  } catch (...) {
    for (;;) pause();
  }
}

// What body() returns, computed without the interpreter's lock.
template <class Body>
auto without_lock(const Body& body) -> decltype(body()) {
  struct Lock {
    PyThreadState* thread = PyEval_SaveThread();
    ~Lock() { take_lock(thread); }
  } const lock;
  return body();
}

}  // namespace crossent
