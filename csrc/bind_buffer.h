// What the bindings of bare loops share: contiguous Python buffers, and the loops of the instruction set in use.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <cstring>

#include "crossent.h"

namespace crossent {

// The bytes of a contiguous Python buffer, held while the core uses them.
class Bytes {
 public:
  Bytes(nanobind::handle object, bool writable) {
    if (PyObject_GetBuffer(object.ptr(), &view_, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) != 0) {
      throw nanobind::python_error();
    }
  }
  ~Bytes() { PyBuffer_Release(&view_); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  char* data() const { return static_cast<char*>(view_.buf); }
  int64_t size() const { return view_.len; }

 private:
  Py_buffer view_{};
};

// Of loops compiled for several instruction sets those for the one in use, else the last, which run anywhere.
template <class Loops, int count>
const Loops& in_use(const Loops* const (&all)[count]) {
  for (const Loops* const loops : all) {
    if (std::strcmp(loops->name, isa()) == 0) return *loops;
  }
  return *all[count - 1];
}

}  // namespace crossent
