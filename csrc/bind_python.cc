// The boundary to Python: buffers in, buffers out. Defaults, rules and messages live in _arguments.py.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bind_limits.h"
#include "bind_standings.h"
#include "bind_problem.h"
#include "bind_torch.h"
#include "crossent.h"
#include "threads.h"

namespace nb = nanobind;

namespace {

using crossent::Array;
using crossent::Problem;
using crossent::RowLayout;
using crossent::Type;

// A Python buffer, held while the core uses it.
class Buffer {
 public:
  Buffer(nb::handle object, bool writable) {
    if (object.is_none()) return;
    const int flags = PyBUF_STRIDES | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw nb::python_error();
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

// Sets an array's address, type and byte order from a buffer; uint16 stands for bfloat16 where `bfloat16` says so.
Array describe(const Buffer& buffer, bool bfloat16) {
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
      throw nb::type_error("crossent._core: a buffer of an unknown type");
  }
  if (bfloat16) array.type = Type::bfloat16;
  return array;
}

// Registers a buffer's array; `axis` is its class axis, or -1.
void add(RowLayout& layout, Array& array, const Buffer& buffer, int axis) {
  if (buffer) layout.add(array, buffer.view().strides, buffer.view().ndim, axis);
}

constexpr int kLogitsAreBfloat16 = 1, kTargetsAreBfloat16 = 2, kVectorIsBfloat16 = 4;

// See _core.pyi. Returns (sum of losses, divisor, first bad row or -1); where the divisor is 0 or a row is bad nothing
// was written.
nb::tuple compute(int output, int form, int axis, int bfloat16, nb::handle logits, nb::handle targets,
                  nb::handle weight, nb::handle grad_loss, nb::handle vector, nb::handle loss, nb::handle grad,
                  nb::handle lse, nb::handle entropy, nb::handle argmax, nb::handle ignore_index, bool reduced,
                  bool mean, double normalizer, double scale, double label_smoothing, double z_loss, double softcap,
                  double logit_scale) {
  const Buffer logits_buffer(logits, false), targets_buffer(targets, false), weight_buffer(weight, false);
  const Buffer grad_loss_buffer(grad_loss, false), vector_buffer(vector, false);
  const Buffer loss_buffer(loss, true), grad_buffer(grad, true), lse_buffer(lse, true);
  const Buffer entropy_buffer(entropy, true), argmax_buffer(argmax, true);
  Problem problem;
  problem.output = static_cast<crossent::Output>(output);
  problem.form = static_cast<crossent::Targets>(form);
  problem.classes = logits_buffer.view().shape[axis];
  problem.logits = describe(logits_buffer, bfloat16 & kLogitsAreBfloat16);
  problem.targets = describe(targets_buffer, bfloat16 & kTargetsAreBfloat16);
  problem.grad_loss = describe(grad_loss_buffer, false);
  problem.vector = describe(vector_buffer, bfloat16 & kVectorIsBfloat16);
  (reduced ? problem.total : problem.loss) = describe(loss_buffer, false);
  problem.grad = describe(grad_buffer, bfloat16 & kLogitsAreBfloat16);
  problem.lse = describe(lse_buffer, false);
  problem.entropy = describe(entropy_buffer, false);
  problem.argmax = describe(argmax_buffer, false);
  RowLayout layout(logits_buffer.view().shape, logits_buffer.view().ndim, axis);
  add(layout, problem.logits, logits_buffer, axis);
  add(layout, problem.targets, targets_buffer, problem.form == crossent::Targets::distribution ? axis : -1);
  add(layout, problem.grad_loss, grad_loss_buffer, -1);
  add(layout, problem.vector, vector_buffer, axis);
  if (!reduced) add(layout, problem.loss, loss_buffer, -1);
  add(layout, problem.grad, grad_buffer, axis);
  add(layout, problem.lse, lse_buffer, -1);
  add(layout, problem.entropy, entropy_buffer, -1);
  add(layout, problem.argmax, argmax_buffer, -1);
  layout.settle(problem.rows);
  problem.weight = weight_buffer ? static_cast<const double*>(weight_buffer.view().buf) : nullptr;
  crossent::set_ignored(problem, ignore_index);
  problem.label_smoothing = label_smoothing;
  problem.z_loss = z_loss;
  problem.softcap = softcap;
  problem.logit_scale = logit_scale;

  crossent::Answer answer;
  {
    const nb::gil_scoped_release release;
    answer = crossent::answer(problem, mean, normalizer, scale, crossent::parallel_for);
  }
  return nb::make_tuple(answer.sum, answer.divisor, answer.bad_row);
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const char* const* name = crossent::available_isas(); *name; ++name) names.emplace_back(*name);
  return names;
}

}  // namespace

NB_MODULE(_core, module) {
  const auto absent = [](const char* name) { return nb::arg(name).none(); };
  module.def("compute", &compute, nb::arg("output"), nb::arg("form"), nb::arg("axis"), nb::arg("bfloat16"),
             nb::arg("logits"), absent("targets"), absent("weight"), absent("grad_loss"), absent("vector"),
             absent("loss"), absent("grad"), absent("lse"), absent("entropy"), absent("argmax"), absent("ignore_index"),
             nb::arg("reduced"), nb::arg("mean"), nb::arg("normalizer"), nb::arg("scale"), nb::arg("label_smoothing"),
             nb::arg("z_loss"), nb::arg("softcap"), nb::arg("logit_scale"));
  module.def("isa", &crossent::isa);
  module.def("available_isas", &available_isas);
  module.def("select_isa", &crossent::select_isa);
  module.def("get_num_threads", &crossent::get_num_threads);
  module.def("set_num_threads", &crossent::set_num_threads);
  crossent::bind_limits(module);
  crossent::bind_standings(module);
  crossent::bind_pointers(module);
}
