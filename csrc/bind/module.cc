// The boundary to Python: arrays and options in, outcome out. Rules and messages live in options.py and _arguments.py.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <exception>
#include <initializer_list>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include "bind/arrays.h"
#include "bind/evaluation.h"
#include "bind/lock.h"
#include "bind/torch.h"
#include "core/threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace crossent {
namespace {

// 1. Options: crossent.options.Options, a tuple whose fields have these names in this order.

constexpr const char* kOptionNames[] = {"ignore_index", "reduction",   "label_smoothing", "z_loss",
                                        "softcap",      "logit_scale", "normalizer",      "when_empty"};

double number_or_none(PyObject* value) { return value == Py_None ? 0 : PyFloat_AsDouble(value); }

bool is(PyObject* value, const char* word) { return PyUnicode_CompareWithASCIIString(value, word) == 0; }

// The integer that is ignored, read as signed or, where only that holds it, unsigned.
void read_ignore_index(PyObject* value, Options& options) {
  int overflow = 0;
  options.ignores = true;
  options.ignore_index = PyLong_AsLongLongAndOverflow(value, &overflow);
  if (overflow == 0) return;
  options.ignore_index = static_cast<int64_t>(PyLong_AsUnsignedLongLong(value));
  options.ignore_is_unsigned = true;
  if (!PyErr_Occurred()) return;
  PyErr_Clear();  // no integer dtype holds it: nothing is ignored
  options.ignores = false;
}

Options options_from(nb::handle given) {
  Options options;
  if (given.is_none()) return options;
  PyObject* const fields = given.ptr();
  if (PyTuple_Size(fields) != static_cast<Py_ssize_t>(std::size(kOptionNames))) {
    PyErr_Clear();
    throw nb::type_error("crossent._core: options are a crossent.options.Options");
  }
  Py_ssize_t place = 0;
  const auto next = [&] { return PyTuple_GetItem(fields, place++); };
  read_ignore_index(next(), options);
  PyObject* const reduction = next();
  options.reduction = is(reduction, "mean") ? Reduction::mean : is(reduction, "sum") ? Reduction::sum : Reduction::none;
  options.label_smoothing = PyFloat_AsDouble(next());
  options.z_loss = PyFloat_AsDouble(next());
  options.softcap = number_or_none(next());
  options.logit_scale = PyFloat_AsDouble(next());
  options.normalizer = number_or_none(next());
  PyObject* const when_empty = next();
  options.when_empty = is(when_empty, "raise")  ? WhenEmpty::raise
                       : is(when_empty, "zero") ? WhenEmpty::zero
                                                : WhenEmpty::nan;
  if (PyErr_Occurred()) throw nb::python_error();
  return options;
}

// 2. Results: Python's own named tuples. nanobind's objects end the process where there is no memory for one.

PyTypeObject *judgement_type, *outcome_type;  // for as long as the process lives

void make_record_types() {
  static PyStructSequence_Field of_judgement[] = {{"bad_row", nullptr}, {"divisor", nullptr}, {nullptr, nullptr}};
  static PyStructSequence_Field of_outcome[] = {
      {"sum", nullptr}, {"bad_row", nullptr}, {"empty", nullptr}, {nullptr, nullptr}};
  static PyStructSequence_Desc judgement = {"crossent._core.Judgement", nullptr, of_judgement, 2};
  static PyStructSequence_Desc outcome = {"crossent._core.Outcome", nullptr, of_outcome, 3};
  judgement_type = PyStructSequence_NewType(&judgement);
  outcome_type = PyStructSequence_NewType(&outcome);
  if (!judgement_type || !outcome_type) throw nb::python_error();
}

// The values, new references, as a named tuple.
nb::object record(PyTypeObject* type, std::initializer_list<PyObject*> values) {
  nb::object tuple = nb::steal(PyStructSequence_New(type));
  bool complete = tuple.is_valid();
  Py_ssize_t place = 0;
  for (PyObject* const value : values) {
    complete = complete && value;
    if (tuple.is_valid()) {
      PyStructSequence_SetItem(tuple.ptr(), place++, value);
    } else {
      Py_XDECREF(value);
    }
  }
  if (!complete) throw nb::python_error();
  return tuple;
}

// 3. Problems.

bool is_float(Type type) { return type <= Type::bfloat16; }
bool is_integer(Type type) { return !is_float(type) && type != Type::boolean; }

const double* numbers_of(const Operand& weight, int64_t classes) {
  const Array& array = weight.array;
  const bool is_line = weight.dimensions == 1 && weight.has_shape && weight.shape[0] == classes &&
                       (classes == 1 || weight.strides[0] == sizeof(double));
  check_unchanged(!array || (is_line && array.type == Type::float64 && !array.swapped), "weight");
  return reinterpret_cast<const double*>(array.data);
}

ParallelFor threads_for(const Operand& operand) { return operand.is_address() ? torch_threads() : our_threads; }

// See _core.pyi, as for all that follows.
nb::object judge_targets(nb::handle options, int64_t classes, nb::handle targets, nb::handle axis, nb::handle weight,
                         nb::handle verdict) {
  const Operand target(targets, false), weights(weight, false), verdicts(verdict, true);
  const int class_axis = axis.is_none() ? kNoClasses : nb::cast<int>(axis);
  Problem problem;
  problem.options = options_from(options);
  problem.form = axis.is_none() ? Targets::index : Targets::distribution;
  problem.classes = classes;
  problem.weight = numbers_of(weights, classes);
  check_unchanged(class_axis < target.dimensions && (class_axis == kNoClasses || target.shape[class_axis] == classes),
                  "targets");
  RowLayout layout(target, class_axis);
  layout.add(problem.targets, target, class_axis, "targets");
  layout.add(problem.verdict, verdicts, kNoClasses, "verdict");
  problem.rows = layout.settle();
  const Judgement found = without_lock([&] { return judge(problem, threads_for(target)); });
  return record(judgement_type, {PyLong_FromLongLong(found.bad_row), PyFloat_FromDouble(found.divisor)});
}

// The arrays of a problem beside logits and targets, by name: twice as quick to hand over as keywords, of which most
// are absent.
enum Role { kWeight, kGradLoss, kVector, kLoss, kGrad, kLse, kEntropy, kArgmax };
constexpr const char* kRoles[] = {"weight", "grad_loss", "vector", "loss", "grad", "lse", "entropy", "argmax"};
PyObject* role_names[std::size(kRoles)];  // interned, for as long as the process lives

void intern_roles() {
  for (size_t i = 0; i < std::size(kRoles); ++i) role_names[i] = PyUnicode_InternFromString(kRoles[i]);
}

void check_roles(nb::dict operands) {
  Py_ssize_t known = 0;
  for (PyObject* const name : role_names) known += PyDict_Contains(operands.ptr(), name);
  if (known != PyDict_Size(operands.ptr())) throw nb::type_error("crossent._core: an operand of an unknown name");
}

nb::object solve_problem(Output output, nb::handle options, int axis, nb::handle logits, nb::handle targets,
                         nb::dict operands, nb::handle divisor) {
  check_roles(operands);
  const auto given = [&](Role role) {
    PyObject* const value = PyDict_GetItemWithError(operands.ptr(), role_names[role]);
    return nb::handle(value ? value : Py_None);
  };
  const nb::handle grad_loss = given(kGradLoss);
  const bool is_factor = PyFloat_Check(grad_loss.ptr());
  const Operand logit(logits, false), target(targets, false), weights(given(kWeight), false);
  const Operand factors(is_factor ? nb::handle(Py_None) : grad_loss, false), vectors(given(kVector), false);
  const Operand losses(given(kLoss), true), gradient(given(kGrad), true), lses(given(kLse), true);
  const Operand entropies(given(kEntropy), true), largest(given(kArgmax), true);
  Problem problem;
  problem.output = output;
  problem.options = options_from(options);
  check_unchanged(axis < logit.dimensions && logit.shape[axis] > 0 && is_float(logit.array.type), "logits");
  problem.classes = logit.shape[axis];
  problem.weight = numbers_of(weights, problem.classes);
  const bool has_classes = target.dimensions == logit.dimensions;
  if (target.array) problem.form = has_classes ? Targets::distribution : Targets::index;
  check_unchanged(problem.form != Targets::index || is_integer(target.array.type), "targets");
  check_unchanged(!gradient.array || gradient.array.type == logit.array.type, "out");
  if (is_factor) problem.scale = PyFloat_AsDouble(grad_loss.ptr());
  RowLayout layout(logit, axis);
  layout.add(problem.logits, logit, axis, "logits");
  layout.add(problem.targets, target, has_classes ? axis : kNoClasses, "targets");
  layout.add(problem.grad_loss, factors, kNoClasses, "grad_loss");
  layout.add(problem.vector, vectors, axis, "vector");
  layout.add(problem.grad, gradient, axis, "out");
  layout.add(problem.lse, lses, kNoClasses, "lse");
  layout.add(problem.entropy, entropies, kNoClasses, "entropy");
  layout.add(problem.argmax, largest, kNoClasses, "argmax");
  if (problem.options.reduction == Reduction::none) {
    layout.add(problem.loss, losses, kNoClasses, "loss");
  } else {
    problem.total = losses.array;
  }
  problem.rows = layout.settle();
  const bool is_judged = !divisor.is_none();
  const double known = is_judged ? nb::cast<double>(divisor) : 0;
  const Outcome outcome = without_lock([&] {
    const ParallelFor threads = threads_for(logit);
    return is_judged ? solve(problem, known, threads) : judge_and_solve(problem, threads);
  });
  return record(outcome_type, {PyFloat_FromDouble(outcome.sum), PyLong_FromLongLong(outcome.bad_row),
                               PyBool_FromLong(outcome.empty)});
}

std::vector<std::string> available() {
  std::vector<std::string> names;
  for (const char* const* name = available_isas(); *name; ++name) names.emplace_back(*name);
  return names;
}

nb::tuple option_names() {
  nb::list names;
  for (const char* const name : kOptionNames) names.append(name);
  return nb::tuple(names);
}

void explain_lack_of_memory(const std::exception_ptr& raised, void*) {
  try {
    std::rethrow_exception(raised);
  } catch (const std::bad_alloc&) {
    PyErr_SetString(PyExc_MemoryError, "no memory is left for this call");
  }
}

void bind_enums(nb::module_& module) {
  nb::enum_<Output>(module, "Output")
      .value("LOSS", Output::loss)
      .value("SOFTMAX", Output::softmax)
      .value("LOG_SOFTMAX", Output::log_softmax)
      .value("SCORES", Output::scores)
      .value("PRODUCT", Output::product);
  nb::enum_<Verdict>(module, "Verdict", nb::is_arithmetic())
      .value("IGNORED", Verdict::ignored)
      .value("KEPT", Verdict::kept)
      .value("BAD", Verdict::bad);
  nb::enum_<Type>(module, "Type", nb::is_arithmetic())
      .value("float64", Type::float64)
      .value("float32", Type::float32)
      .value("float16", Type::float16)
      .value("bfloat16", Type::bfloat16)
      .value("int64", Type::int64)
      .value("int32", Type::int32)
      .value("int16", Type::int16)
      .value("int8", Type::int8)
      .value("uint64", Type::uint64)
      .value("uint32", Type::uint32)
      .value("uint16", Type::uint16)
      .value("uint8", Type::uint8)
      .value("bool", Type::boolean);
}

}  // namespace
}  // namespace crossent

NB_MODULE(core, module) {
  using namespace crossent;
  nb::register_exception_translator(explain_lack_of_memory);
  bind_enums(module);
  make_record_types();
  module.attr("option_names") = option_names();
  module.def("judge", &judge_targets, "options"_a.none(), "classes"_a, "targets"_a, "axis"_a = nb::none(),
             nb::kw_only(), "weight"_a = nb::none(), "verdict"_a = nb::none());
  intern_roles();
  module.def("solve", &solve_problem, "output"_a, "options"_a.none(), "axis"_a, "logits"_a, "targets"_a.none(),
             "operands"_a, "divisor"_a = nb::none());
  module.def("isa", &isa);
  module.def("available_isas", &available);
  module.def("select_isa", &select_isa);
  module.def("get_num_threads", &get_num_threads);
  module.def("set_num_threads", &set_num_threads);
  bind_evaluation(module);
  bind_torch(module);
}

// What Python calls. Types, names and threads are the process's, and nanobind forgets those of one interpreter when
// another loads the module.
extern "C" NB_EXPORT PyObject* PyInit__core() {
  if (PyInterpreterState_GetID(PyInterpreterState_Get()) == 0) return PyInit_core();
  PyErr_SetString(PyExc_ImportError, "crossent works in a process's main interpreter alone; use threads or processes");
  return nullptr;
}
