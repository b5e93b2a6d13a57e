// The boundary to Python: buffers in, buffers out. Defaults, rules and messages live in _arguments.py.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bind_buffer.h"
#include "bind_problem.h"
#include "bind_standings.h"
#include "bind_torch.h"
#include "crossent.h"
#include "threads.h"

namespace nb = nanobind;

namespace {

using crossent::Array;
using crossent::Buffer;
using crossent::describe;
using crossent::Problem;
using crossent::RowLayout;

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
    answer = crossent::answer(problem, mean, normalizer, scale, {crossent::parallel_for, crossent::kWorthwhile});
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
  crossent::bind_standings(module);
  crossent::bind_pointers(module);
}
