// What an evaluation asks of a block, for Python: loss, and piece by piece what p - y and the logits say.
#include "bind/evaluation.h"

#include <memory>

#include "bind/arrays.h"
#include "core/float_mode.h"
#include "core/kernels.h"
#include "core/threads.h"
#include "kernels/standings.h"

namespace nb = nanobind;

namespace crossent {

namespace {

void run(const Standing<float>& standing, int64_t rows, int64_t classes) {
  instruction_set().standings.floats(standing, rows, classes);
}
void run(const Standing<double>& standing, int64_t rows, int64_t classes) {
  instruction_set().standings.doubles(standing, rows, classes);
}

// Everything on the calling thread.
void serially(int64_t count, void (*body)(void*, int64_t, int64_t), void* context) { body(context, 0, count); }

// Rows that are worked on together, so that their logits and p - y stay in a core's own cache.
int64_t rows_at_once(int64_t classes) {
  constexpr int64_t kElements = 32768, kMostRows = 2048;
  const int64_t rows = kElements / classes;
  return rows < 1 ? 1 : rows < kMostRows ? rows : kMostRows;
}

// A block whose rows are contiguous; targets: class indices, or distributions of any type.
template <class X>
struct RankedBlock {
  Array logits, targets;
  Targets form;
  int64_t rows, classes;
  Standing<X> standing;  // its residual is found piece by piece

  void rank(int64_t begin, int64_t end) const {
    const FloatMode mode;  // of the standings too
    const int64_t row_bytes = classes * static_cast<int64_t>(sizeof(X)), loss_bytes = sizeof(X), count = end - begin;
    const std::unique_ptr<X[]> residual(new X[static_cast<size_t>(count * classes)]);
    Problem problem;
    problem.rows = {1, &count, count};
    problem.classes = classes;
    problem.logits = logits;
    problem.logits.data += begin * row_bytes;
    problem.targets = targets;
    problem.targets.data += begin * targets.row_strides[0];
    problem.form = form;
    problem.loss = logits;
    problem.loss.row_strides = &loss_bytes;
    problem.loss.data = reinterpret_cast<char*>(const_cast<X*>(standing.loss) + begin);
    problem.grad = logits;
    problem.grad.data = reinterpret_cast<char*>(residual.get());
    solve(problem, 1, {serially, 0});
    run({standing.logits + begin * classes, residual.get(), standing.loss + begin, standing.label + begin,
         standing.rank + begin, standing.answer + begin, standing.near + begin, standing.squares + begin,
         standing.surely_right},
        count, classes);
  }
};

void check(bool fits) {
  if (!fits) throw nb::value_error("crossent._core: the arrays of a block do not fit one another");
}

template <class X>
X* contiguous(const Operand& operand, int64_t count) {
  const Py_buffer& buffer = operand.buffer();
  check(buffer.len == count * static_cast<int64_t>(sizeof(X)) && PyBuffer_IsContiguous(&buffer, 'C'));
  return static_cast<X*>(buffer.buf);
}

template <class X>
void rank_block(const Operand& logits, nb::handle targets, nb::handle label, nb::handle loss, nb::handle rank,
                nb::handle answer, nb::handle near, nb::handle squares, double surely_right) {
  const int64_t rows = logits.shape[0], classes = logits.shape[1];
  const Operand target(targets, false), labels(label, false), losses(loss, true), ranks(rank, true);
  const Operand answers(answer, true), nears(near, true), sums(squares, true);
  const int64_t row_bytes = classes * static_cast<int64_t>(sizeof(X));
  const Targets form = target.dimensions == 1 ? Targets::index : Targets::distribution;
  RankedBlock<X> block{logits.array, target.array, form, rows, classes, {}};
  block.standing = {contiguous<X>(logits, rows * classes),
                    nullptr,
                    contiguous<X>(losses, rows),
                    contiguous<int64_t>(labels, rows),
                    contiguous<int64_t>(ranks, rows),
                    contiguous<int64_t>(answers, rows),
                    contiguous<X>(nears, rows),
                    contiguous<double>(sums, rows),
                    surely_right};
  check(target.shape[0] == rows && (form == Targets::index || target.shape[1] == classes));
  block.logits.row_strides = &row_bytes;
  block.logits.class_stride = sizeof(X);
  block.targets.row_strides = target.strides;
  block.targets.class_stride = form == Targets::index ? 0 : target.strides[1];
  for (int64_t i = 0; i < rows; ++i) check(block.standing.label[i] >= 0 && block.standing.label[i] < classes);
  const nb::gil_scoped_release release;
  in_pieces(rows, rows_at_once(classes), [&](int64_t begin, int64_t end) { block.rank(begin, end); });
}

void standings(nb::handle logits, nb::handle targets, nb::handle label, nb::handle loss, nb::handle rank,
               nb::handle answer, nb::handle near, nb::handle squares, double surely_right) {
  const Operand operand(logits, false);
  const auto rank_as = operand.array.type == Type::float64 ? rank_block<double> : rank_block<float>;
  rank_as(operand, targets, label, loss, rank, answer, near, squares, surely_right);
}

}  // namespace

void bind_evaluation(nb::module_& module) {
  module.def("standings", &standings, nb::arg("logits"), nb::arg("targets"), nb::arg("label"), nb::arg("loss"),
             nb::arg("rank"), nb::arg("answer"), nb::arg("near"), nb::arg("squares"), nb::arg("surely_right"));
}

}  // namespace crossent
