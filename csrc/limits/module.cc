// The machine's own limits for Python: whole buffers on all threads, in pieces as the kernels take them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <atomic>
#include <string>
#include <vector>

#include "core/threads.h"
#include "limits/limits.h"

namespace nb = nanobind;

namespace crossent {

#define CROSSENT_INSTRUCTION_SET(set, name, runs_here) \
  namespace set {                                      \
  extern const Limits limits;                          \
  }
#include "instruction_sets.inc"
#undef CROSSENT_INSTRUCTION_SET

namespace {

// The loops of an instruction set that this machine has.
const Limits& limits_of(const std::string& isa) {
#define CROSSENT_INSTRUCTION_SET(set, name, runs_here) \
  if (isa == name && (runs_here)) return set::limits;
#include "instruction_sets.inc"
#undef CROSSENT_INSTRUCTION_SET
  throw nb::value_error(("no loops for " + isa + " run here").c_str());
}

// The bytes of a contiguous Python buffer, held while a loop uses them.
class Bytes {
 public:
  Bytes(nb::handle object, bool writable) {
    if (PyObject_GetBuffer(object.ptr(), &view_, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) != 0) {
      throw nb::python_error();
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

// Calls body(begin, end) over [0, count) in pieces, on all threads, without the interpreter's lock.
template <class Body>
void in_pieces(int64_t count, int64_t piece, Body body) {
  const nb::gil_scoped_release release;
  const auto one = [&](int64_t i) { body(i * piece, (i + 1) * piece < count ? (i + 1) * piece : count); };
  const int64_t pieces = (count + piece - 1) / piece;
  if (pieces <= 1) return one(0);
  parallel_for(
      pieces,
      [](void* context, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) (*static_cast<const decltype(one)*>(context))(i);
      },
      const_cast<void*>(static_cast<const void*>(&one)));
}

constexpr int64_t kPieceBytes = 262144, kPieceExps = 65536;

uint64_t read(const Limits& limits, nb::handle buffer) {
  const Bytes bytes(buffer, false);
  std::atomic<uint64_t> result{0};
  in_pieces(bytes.size(), kPieceBytes,
            [&](int64_t begin, int64_t end) { result += limits.read(bytes.data() + begin, end - begin); });
  return result;
}

void scale(const Limits& limits, nb::handle buffer, double factor, bool doubles) {
  const Bytes bytes(buffer, true);
  const auto run = doubles ? limits.scale_doubles : limits.scale;
  in_pieces(bytes.size(), kPieceBytes,
            [&](int64_t begin, int64_t end) { run(bytes.data() + begin, end - begin, factor); });
}

void fill(const Limits& limits, nb::handle buffer) {
  const Bytes bytes(buffer, true);
  in_pieces(bytes.size(), kPieceBytes,
            [&](int64_t begin, int64_t end) { limits.fill(bytes.data() + begin, end - begin); });
}

double exps(const Limits& limits, int64_t count, bool doubles) {
  const auto run = doubles ? limits.exps_of_doubles : limits.exps;
  std::vector<double> sums(static_cast<size_t>((count + kPieceExps - 1) / kPieceExps));
  in_pieces(count, kPieceExps,
            [&](int64_t begin, int64_t end) { sums[static_cast<size_t>(begin / kPieceExps)] = run(end - begin); });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

}  // namespace
}  // namespace crossent

NB_MODULE(_limits, module) {
  using crossent::Limits;
  nb::class_<Limits>(module, "Limits")
      .def("read", &crossent::read, nb::arg("buffer"))
      .def("scale", &crossent::scale, nb::arg("buffer"), nb::arg("factor"), nb::arg("doubles"))
      .def("fill", &crossent::fill, nb::arg("buffer"))
      .def("exp", &crossent::exps, nb::arg("count"), nb::arg("doubles"));
  module.def("limits_of", &crossent::limits_of, nb::arg("isa"), nb::rv_policy::reference);
  module.def("set_num_threads", &crossent::set_num_threads, nb::arg("count"));
}
