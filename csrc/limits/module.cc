// The machine's own limits for Python: whole buffers on all threads, in pieces as the kernels take them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <numeric>
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

// Contiguous memory of any type.
using Memory = nb::ndarray<nb::c_contig, nb::device::cpu>;
using ReadOnly = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

constexpr int64_t kPieceBytes = 262144, kPieceExps = 65536;

// Calls body(begin, end) over [0, count) in pieces, on all threads.
template <class Body>
void in_pieces(int64_t count, int64_t piece, const Body& body) {
  auto run = [&](int64_t i) { body(i * piece, std::min((i + 1) * piece, count)); };
  const auto run_piece = [](void* context, int64_t, int64_t i) { (*static_cast<decltype(run)*>(context))(i); };
  const int64_t pieces = (count + piece - 1) / piece;
  our_threads.run(pieces, std::min(our_threads.most_workers(), pieces), run_piece, &run);
}

// Calls run(data, bytes) on all threads, a piece of the memory at a time.
template <class Run>
void on_pieces(char* data, size_t bytes, const Run& run) {
  in_pieces(static_cast<int64_t>(bytes), kPieceBytes,
            [&](int64_t begin, int64_t end) { run(data + begin, end - begin); });
}

uint64_t read(const Limits& limits, const ReadOnly& buffer) {
  std::atomic<uint64_t> result{0};
  char* const data = static_cast<char*>(const_cast<void*>(buffer.data()));
  on_pieces(data, buffer.nbytes(), [&](const char* from, int64_t bytes) { result += limits.read(from, bytes); });
  return result;
}

void scale(const Limits& limits, const Memory& buffer, double factor, bool doubles) {
  on_pieces(static_cast<char*>(buffer.data()), buffer.nbytes(),
            [&](char* data, int64_t bytes) { limits.scale[doubles](data, bytes, factor); });
}

void fill(const Limits& limits, const Memory& buffer) {
  on_pieces(static_cast<char*>(buffer.data()), buffer.nbytes(), limits.fill);
}

double exps(const Limits& limits, int64_t count, bool doubles) {
  std::vector<double> sums(static_cast<size_t>(count / kPieceExps + 1));
  in_pieces(count, kPieceExps, [&](int64_t begin, int64_t end) {
    sums[static_cast<size_t>(begin / kPieceExps)] = limits.exps[doubles](end - begin);
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace
}  // namespace crossent

NB_MODULE(_limits, module) {
  using crossent::Limits;
  const nb::call_guard<nb::gil_scoped_release> without_lock;
  nb::class_<Limits>(module, "Limits")
      .def("read", &crossent::read, nb::arg("buffer").noconvert(), without_lock)
      .def("scale", &crossent::scale, nb::arg("buffer").noconvert(), nb::arg("factor"), nb::arg("doubles"),
           without_lock)
      .def("fill", &crossent::fill, nb::arg("buffer").noconvert(), without_lock)
      .def("exp", &crossent::exps, nb::arg("count"), nb::arg("doubles"), without_lock);
  module.def("limits_of", &crossent::limits_of, nb::arg("isa"), nb::rv_policy::reference);
  module.def("set_num_threads", &crossent::set_num_threads, nb::arg("count"));
}
