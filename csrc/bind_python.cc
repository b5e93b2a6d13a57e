// The boundary to Python: buffers in, buffers out. Defaults, rules and messages live in _arguments.py.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "crossent.h"
#include "threads.h"

namespace nb = nanobind;

namespace {

using crossent::Array;
using crossent::Problem;
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

// The rows' dimensions of several arrays together, neighbours merged where every array allows it.
class RowLayout {
 public:
  // shape: of the logits; the class axis is left out.
  RowLayout(const Py_buffer& logits, int axis) {
    for (int d = 0; d < logits.ndim; ++d) {
      if (d != axis) shape_.push_back(logits.shape[d]);
    }
    for (const int64_t extent : shape_) count_ *= extent;
  }

  // Registers an array; `axis` is its class axis, or -1.
  void add(Array& array, const Buffer& buffer, int axis) {
    if (!buffer) return;
    std::vector<int64_t> strides;
    for (int d = 0; d < buffer.view().ndim; ++d) {
      if (d == axis) {
        array.class_stride = buffer.view().strides[d];
      } else {
        strides.push_back(buffer.view().strides[d]);
      }
    }
    arrays_.push_back(&array);
    strides_.push_back(std::move(strides));
  }

  // Merges dimensions and points the arrays and the rows at the result, which this object keeps.
  void settle(crossent::Rows& rows) {
    size_t last = 0;  // dimensions kept so far, less one
    bool any = false;
    for (size_t d = 0; d < shape_.size(); ++d) {
      if (shape_[d] == 1) continue;
      if (any && mergeable(last, d)) {
        shape_[last] *= shape_[d];
        for (auto& strides : strides_) strides[last] = strides[d];
        continue;
      }
      if (any) ++last;
      any = true;
      shape_[last] = shape_[d];
      for (auto& strides : strides_) strides[last] = strides[d];
    }
    rows = {any ? static_cast<int>(last + 1) : 0, shape_.data(), count_};
    for (size_t i = 0; i < arrays_.size(); ++i) arrays_[i]->row_strides = strides_[i].data();
  }

 private:
  bool mergeable(size_t outer, size_t inner) const {
    for (const auto& strides : strides_) {
      if (strides[outer] != strides[inner] * shape_[inner]) return false;
    }
    return true;
  }

  std::vector<int64_t> shape_;
  int64_t count_ = 1;
  std::vector<Array*> arrays_;
  std::vector<std::vector<int64_t>> strides_;
};

// The integer of an index target that is ignored, read as signed or, where only that holds it, unsigned.
void set_ignored(Problem& problem, nb::handle value) {
  if (value.is_none()) return;
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
  problem.ignores = true;
  problem.ignore_value = number;
  if (overflow == 0) return;
  const unsigned long long large = PyLong_AsUnsignedLongLong(value.ptr());
  if (PyErr_Occurred()) {
    PyErr_Clear();  // no integer dtype holds it: nothing is ignored
    problem.ignores = false;
    return;
  }
  problem.ignore_value = static_cast<int64_t>(large);
  problem.ignore_is_unsigned = true;
}

constexpr int kLogitsAreBfloat16 = 1, kTargetsAreBfloat16 = 2, kVectorIsBfloat16 = 4;

// See _core.pyi. Returns (sum of losses, divisor, first bad row or -1); where the divisor is 0 or a row is bad nothing
// was written.
nb::tuple compute(int output, int form, int axis, int bfloat16, nb::handle logits, nb::handle targets,
                  nb::handle weight, nb::handle grad_loss, nb::handle vector, nb::handle loss, nb::handle grad,
                  nb::handle lse, nb::handle entropy, nb::handle argmax, nb::handle ignore_index, bool mean,
                  double normalizer, double scale, double label_smoothing, double z_loss, double softcap,
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
  problem.loss = describe(loss_buffer, false);
  problem.grad = describe(grad_buffer, bfloat16 & kLogitsAreBfloat16);
  problem.lse = describe(lse_buffer, false);
  problem.entropy = describe(entropy_buffer, false);
  problem.argmax = describe(argmax_buffer, false);
  RowLayout layout(logits_buffer.view(), axis);
  layout.add(problem.logits, logits_buffer, axis);
  layout.add(problem.targets, targets_buffer, problem.form == crossent::Targets::distribution ? axis : -1);
  layout.add(problem.grad_loss, grad_loss_buffer, -1);
  layout.add(problem.vector, vector_buffer, axis);
  layout.add(problem.loss, loss_buffer, -1);
  layout.add(problem.grad, grad_buffer, axis);
  layout.add(problem.lse, lse_buffer, -1);
  layout.add(problem.entropy, entropy_buffer, -1);
  layout.add(problem.argmax, argmax_buffer, -1);
  layout.settle(problem.rows);
  problem.weight = weight_buffer ? static_cast<const double*>(weight_buffer.view().buf) : nullptr;
  set_ignored(problem, ignore_index);
  problem.label_smoothing = label_smoothing;
  problem.z_loss = z_loss;
  problem.softcap = softcap;
  problem.logit_scale = logit_scale;

  double sum = 0, divisor = 1;
  int64_t bad_row = -1;
  {
    const nb::gil_scoped_release release;
    double kept = static_cast<double>(problem.rows.count);
    if (problem.form == crossent::Targets::index) {
      const crossent::TargetSummary summary = crossent::summarize_targets(problem, crossent::parallel_for);
      bad_row = summary.bad_row;
      kept = problem.weight ? summary.weight : static_cast<double>(summary.kept);
    }
    if (mean) divisor = normalizer != 0 ? normalizer : kept;
    if (bad_row < 0 && divisor != 0) {
      problem.scale = scale / divisor;
      sum = crossent::run(problem, crossent::parallel_for);
    }
  }
  return nb::make_tuple(sum, divisor, bad_row);
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
             nb::arg("mean"), nb::arg("normalizer"), nb::arg("scale"), nb::arg("label_smoothing"), nb::arg("z_loss"),
             nb::arg("softcap"), nb::arg("logit_scale"));
  module.def("isa", &crossent::isa);
  module.def("available_isas", &available_isas);
  module.def("select_isa", &crossent::select_isa);
  module.def("get_num_threads", &crossent::get_num_threads);
  module.def("set_num_threads", &crossent::set_num_threads);
}
