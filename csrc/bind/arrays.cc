#include "bind/arrays.h"

#include <cstring>

namespace nb = nanobind;

namespace crossent {
namespace {

char nothing = 0;  // where an array without elements lies

Type integer_type(bool is_unsigned, int64_t size) {
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

// Of a buffer's format, as the struct module writes it, less its byte order.
Type type_of(char format, int64_t size) {
  switch (format) {
    case 'd':
      return Type::float64;
    case 'f':
      return Type::float32;
    case 'e':
      return Type::float16;
    case '?':
      return Type::boolean;
    default:
      break;
  }
  if (std::strchr("bhilqn", format)) return integer_type(false, size);
  if (std::strchr("BHILQN", format)) return integer_type(true, size);
  throw nb::type_error("crossent._core: a buffer of an unknown type");
}

void check_dimensions(int64_t dimensions) {
  if (dimensions < 0 || dimensions > kMostDimensions) {
    throw nb::value_error("crossent._core: an array of too many dimensions");
  }
}

Type type_from(PyObject* code) { return static_cast<Type>(PyLong_AsLong(code)); }

}  // namespace

Operand::Operand(nb::handle given, bool writable) {
  if (given.is_none()) return;
  PyObject* const parts = given.ptr();
  if (!PyTuple_Check(parts)) {
    read_buffer(given, writable);
  } else if (PyTuple_Size(parts) == 2) {
    read_buffer(PyTuple_GetItem(parts, 0), writable);
    array.type = type_from(PyTuple_GetItem(parts, 1));
  } else {
    read_address(parts);
  }
}

void Operand::read_buffer(nb::handle buffer, bool writable) {
  const int flags = PyBUF_STRIDES | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
  Py_buffer& view = buffer_.view;
  if (PyObject_GetBuffer(buffer.ptr(), &view, flags) != 0) throw nb::python_error();
  check_dimensions(view.ndim);
  const char* format = view.format ? view.format : "B";
  array.data = view.buf ? static_cast<char*>(view.buf) : &nothing;
  array.swapped = (*format == '>' || *format == '!') && view.itemsize > 1;
  if (*format && std::strchr("<>=!@^", *format)) ++format;
  array.type = type_of(*format, view.itemsize);
  dimensions = view.ndim;
  for (int d = 0; d < dimensions; ++d) {
    shape[d] = view.shape[d];
    strides[d] = view.strides[d];
  }
}

void Operand::read_address(PyObject* parts) {
  is_address_ = true;
  char* const data = reinterpret_cast<char*>(PyLong_AsLongLong(PyTuple_GetItem(parts, 0)));
  array.data = data ? data : &nothing;
  array.type = type_from(PyTuple_GetItem(parts, 1));
  PyObject* const elements = PyTuple_GetItem(parts, 2);
  PyObject* const extents = PyTuple_Size(parts) > 3 ? PyTuple_GetItem(parts, 3) : nullptr;
  has_shape = extents != nullptr;
  check_dimensions(PyTuple_Size(elements));
  if (extents && PyTuple_Size(extents) != PyTuple_Size(elements)) {
    throw nb::value_error("crossent._core: shape and strides of different dimensions");
  }
  dimensions = static_cast<int>(PyTuple_Size(elements));
  for (int d = 0; d < dimensions; ++d) {
    strides[d] = PyLong_AsLongLong(PyTuple_GetItem(elements, d)) * size_of(array.type);
    if (extents) shape[d] = PyLong_AsLongLong(PyTuple_GetItem(extents, d));
  }
  if (PyErr_Occurred()) throw nb::python_error();
}

}  // namespace crossent
