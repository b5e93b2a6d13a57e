// The boundary to PyTorch: addresses in, addresses out. No header and no library of PyTorch is needed: a tensor comes
// as (address, type, strides in elements), which is twenty times quicker to hand over than DLPack; and PyTorch's
// threads are reached through a C function of the library that is loaded already.
#include "bind_torch.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>

#include "bind_problem.h"
#include "crossent.h"
#include "threads.h"

namespace nb = nanobind;

namespace crossent {
namespace {

// 1. PyTorch's threads (its stable C interface, from 2.10).

using TorchBody = void (*)(int64_t begin, int64_t end, void* context);
using TorchParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain, TorchBody, void* context);
using TorchNumThreads = int32_t (*)(uint32_t* count);

std::atomic<TorchParallelFor> torch_parallel_for{nullptr};
std::atomic<TorchNumThreads> torch_get_num_threads{nullptr};

// Pieces that PyTorch's threads take one by one: a thread that another program holds up does not hold up the rest.
struct TorchWork {
  void (*body)(void*, int64_t, int64_t);
  void* context;
  int64_t count;
  std::atomic<int64_t> next{0};

  static void take_pieces(int64_t, int64_t, void* self) {
    auto& work = *static_cast<TorchWork*>(self);
    for (int64_t i = work.next.fetch_add(1); i < work.count; i = work.next.fetch_add(1)) {
      work.body(work.context, i, i + 1);
    }
  }
};

void on_torch_threads(int64_t count, void (*body)(void*, int64_t, int64_t), void* context) {
  uint32_t threads = 1;
  TorchWork work{body, context, count};
  if (torch_get_num_threads.load()(&threads) != 0 || threads < 2) return TorchWork::take_pieces(0, 1, &work);
  const int64_t workers = threads < count ? threads : count;
  if (torch_parallel_for.load()(0, workers, 1, TorchWork::take_pieces, &work) != 0) {
    throw std::runtime_error("crossent: torch_parallel_for failed");
  }
}

// Whether loops run on PyTorch's threads from here on. path: of the libtorch_cpu that this process has loaded.
bool use_torch_threads(const char* path) {
  void* const library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  if (!library) return false;
  const auto loop = reinterpret_cast<TorchParallelFor>(dlsym(library, "torch_parallel_for"));
  const auto count = reinterpret_cast<TorchNumThreads>(dlsym(library, "torch_get_num_threads"));
  if (!loop || !count) return false;
  torch_get_num_threads.store(count);
  torch_parallel_for.store(loop);
  return true;
}

ParallelFor loop_in_use() {
  constexpr double kTorchWorthwhile = 1e4;  // its threads stay awake for a while
  if (torch_parallel_for.load()) return {&on_torch_threads, kTorchWorthwhile};
  return {&parallel_for, kWorthwhile};
}

// 2. Tensors.

// Adds a tensor to a problem, where there is one: (address, type, strides in elements).
void add(RowLayout& layout, Array& array, nb::handle tensor, int axis) {
  constexpr int kMostDimensions = 64;
  if (tensor.is_none()) return;
  static char nothing = 0;
  PyObject* const parts = tensor.ptr();
  char* const data = reinterpret_cast<char*>(PyLong_AsLongLong(PyTuple_GetItem(parts, 0)));
  array.data = data ? data : &nothing;
  array.type = static_cast<Type>(PyLong_AsLong(PyTuple_GetItem(parts, 1)));
  PyObject* const elements = PyTuple_GetItem(parts, 2);
  const int ndim = static_cast<int>(PyTuple_Size(elements));
  int64_t strides[kMostDimensions];
  for (int d = 0; d < ndim; ++d) strides[d] = PyLong_AsLongLong(PyTuple_GetItem(elements, d)) * size_of(array.type);
  layout.add(array, strides, ndim, axis);
}

// See _core.pyi. total: the address of the loss, of its type; 0 where it is not wanted.
nb::tuple compute_tensors(int output, int form, int axis, nb::handle shape, nb::handle logits, nb::handle targets,
                          int64_t weight, nb::handle grad_loss, nb::handle vector, int64_t total, nb::handle loss,
                          nb::handle grad, nb::handle lse, nb::handle entropy, nb::handle argmax,
                          nb::handle ignore_index, bool mean, double normalizer, double scale, double label_smoothing,
                          double z_loss, double softcap, double logit_scale) {
  constexpr int kMostDimensions = 64;
  int64_t extents[kMostDimensions];
  const int ndim = static_cast<int>(PyTuple_Size(shape.ptr()));
  if (ndim < 0 || ndim > kMostDimensions) throw nb::value_error("crossent._core: a tensor of too many dimensions");
  for (int d = 0; d < ndim; ++d) extents[d] = PyLong_AsLongLong(PyTuple_GetItem(shape.ptr(), d));
  Problem problem;
  problem.output = static_cast<Output>(output);
  problem.form = static_cast<Targets>(form);
  problem.classes = extents[axis];
  RowLayout layout(extents, ndim, axis);
  add(layout, problem.logits, logits, axis);
  add(layout, problem.targets, targets, problem.form == Targets::distribution ? axis : -1);
  add(layout, problem.grad_loss, grad_loss, -1);
  add(layout, problem.vector, vector, axis);
  add(layout, problem.loss, loss, -1);
  add(layout, problem.grad, grad, axis);
  add(layout, problem.lse, lse, -1);
  add(layout, problem.entropy, entropy, -1);
  add(layout, problem.argmax, argmax, -1);
  if (PyErr_Occurred()) throw nb::python_error();
  layout.settle(problem.rows);
  problem.weight = reinterpret_cast<const double*>(weight);
  if (total) {
    problem.total.data = reinterpret_cast<char*>(total);
    problem.total.type = problem.logits.type == Type::float64 ? Type::float64 : Type::float32;
  }
  set_ignored(problem, ignore_index);
  problem.label_smoothing = label_smoothing;
  problem.z_loss = z_loss;
  problem.softcap = softcap;
  problem.logit_scale = logit_scale;

  Answer answer;
  {
    const nb::gil_scoped_release release;
    answer = crossent::answer(problem, mean, normalizer, scale, loop_in_use());
  }
  return nb::make_tuple(answer.sum, answer.divisor, answer.bad_row);
}

// Asks for huge pages under fresh memory, on which a first write then takes a fifth of the time.
void advise_huge_pages([[maybe_unused]] int64_t address, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t begin = (address + page - 1) / page * page, end = (address + bytes) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), static_cast<size_t>(end - begin), MADV_HUGEPAGE);
#endif
}

}  // namespace

void bind_pointers(nb::module_& module) {
  const auto absent = [](const char* name) { return nb::arg(name).none(); };
  module.def("compute_tensors", &compute_tensors, nb::arg("output"), nb::arg("form"), nb::arg("axis"), nb::arg("shape"),
             nb::arg("logits"), absent("targets"), nb::arg("weight"), absent("grad_loss"), absent("vector"),
             nb::arg("total"), absent("loss"), absent("grad"), absent("lse"), absent("entropy"), absent("argmax"),
             absent("ignore_index"), nb::arg("mean"), nb::arg("normalizer"), nb::arg("scale"),
             nb::arg("label_smoothing"), nb::arg("z_loss"), nb::arg("softcap"), nb::arg("logit_scale"));
  module.def("use_torch_threads", &use_torch_threads, nb::arg("path"));
  module.def("advise_huge_pages", &advise_huge_pages, nb::arg("address"), nb::arg("bytes"));
}

}  // namespace crossent
