// The one way in which arrays reach the core from Python.
#pragma once

#include <nanobind/nanobind.h>

#include "core/layout.h"

namespace crossent {

// An array of a caller, held while the core uses it. It comes as
//   None                                no array
//   buffer                              of any strides and byte order
//   (buffer, type)                      its bytes as another Type of their size: bfloat16, which no buffer knows
//   (address, type, strides[, shape])   memory that the caller keeps alive; strides in elements
class Operand : public Strided {
 public:
  Operand(nanobind::handle given, bool writable);

  bool is_address() const { return is_address_; }
  const Py_buffer& buffer() const { return buffer_.view; }

 private:
  struct Buffer {
    Py_buffer view{};

    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { PyBuffer_Release(&view); }  // leaves alone what is not held
  };

  void read_buffer(nanobind::handle buffer, bool writable);
  void read_address(PyObject* parts);

  Buffer buffer_;
  bool is_address_ = false;
};

}  // namespace crossent
