// What the bindings share: Python's buffers as arrays of the core, and the loops of the instruction set in use.
#pragma once

#include <nanobind/nanobind.h>

#include <cstring>
#include <string>

#include "crossent.h"

namespace crossent {

// A Python buffer, held while the core uses it.
class Buffer {
 public:
  Buffer(nanobind::handle object, bool writable) {
    if (object.is_none()) return;
    const int flags = PyBUF_STRIDES | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw nanobind::python_error();
    held_ = true;
  }
  ~Buffer() {
    if (held_) PyBuffer_Release(&view_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  explicit operator bool() const { return held_; }
  const Py_buffer& view() const { return view_; }

 private:
  Py_buffer view_{};
  bool held_ = false;
};

inline Type integer_type(bool is_unsigned, int64_t size) {
  switch (size) {
    case 1:
      return is_unsigned ? Type::uint8 : Type::int8;
    case 2:
      return is_unsigned ? Type::uint16 : Type::int16;
    case 4:
      return is_unsigned ? Type::uint32 : Type::int32;
    default:
      return is_unsigned ? Type::uint64 : Type::int64;
  }
}

// Sets an array's address, type and byte order from a buffer; uint16 stands for bfloat16 where `bfloat16` says so.
inline Array describe(const Buffer& buffer, bool bfloat16) {
  Array array;
  if (!buffer) return array;
  const Py_buffer& view = buffer.view();
  static char nothing = 0;
  array.data = view.buf ? static_cast<char*>(view.buf) : &nothing;
  const char* format = view.format ? view.format : "B";
  if (*format == '>' || *format == '!') array.swapped = view.itemsize > 1;
  if (*format && std::string("<>=!@^").find(*format) != std::string::npos) ++format;
  switch (*format) {
    case 'd':
      array.type = Type::float64;
      break;
    case 'f':
      array.type = Type::float32;
      break;
    case 'e':
      array.type = Type::float16;
      break;
    case '?':
      array.type = Type::boolean;
      break;
    case 'b':
    case 'h':
    case 'i':
    case 'l':
    case 'q':
    case 'n':
      array.type = integer_type(false, view.itemsize);
      break;
    case 'B':
    case 'H':
    case 'I':
    case 'L':
    case 'Q':
    case 'N':
      array.type = integer_type(true, view.itemsize);
      break;
    default:
      throw nanobind::type_error("crossent._core: a buffer of an unknown type");
  }
  if (bfloat16) array.type = Type::bfloat16;
  return array;
}

// Of loops compiled for several instruction sets those for the one in use, else the last, which run anywhere.
template <class Loops, int count>
const Loops& in_use(const Loops* const (&all)[count]) {
  for (const Loops* const loops : all) {
    if (std::strcmp(loops->name, isa()) == 0) return *loops;
  }
  return *all[count - 1];
}

}  // namespace crossent
