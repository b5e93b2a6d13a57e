// What an evaluation asks of a block, for Python: loss, and piece by piece what p - y and the logits say.
#include "bind/evaluation.h"

#include <algorithm>
#include <memory>

#include "bind/arrays.h"
#include "bind/lock.h"
#include "core/float_mode.h"
#include "core/kernels.h"
#include "core/threads.h"
#include "kernels/standings.h"

namespace nb = nanobind;

namespace crossent {
namespace {

void stand(const Standing<float>& standing, int64_t begin, int64_t end, const float* residual) {
  instruction_set().standings.floats(standing, begin, end, residual);
}
void stand(const Standing<double>& standing, int64_t begin, int64_t end, const double* residual) {
  instruction_set().standings.doubles(standing, begin, end, residual);
}

// A block whose rows are contiguous; p - y is found a piece at a time, so that it and its logits stay in a core's
// cache.
template <class X>
struct Ranking {
  Problem problem;  // the loss of every row
  Standing<X> standing;

  int64_t rows_of_piece() const {
    constexpr int64_t kElements = 32768, kMostRows = 2048;
    return std::clamp<int64_t>(kElements / problem.classes, 1, kMostRows);
  }

  void rank(int64_t begin) const {
    const FloatMode mode;  // of the standings too
    const int64_t count = std::min(rows_of_piece(), problem.rows.count - begin);
    const std::unique_ptr<X[]> residual(new X[static_cast<size_t>(count * problem.classes)]);
    Problem piece = problem;
    piece.rows = {1, &count, count};
    for (Array* const array : {&piece.logits, &piece.targets, &piece.loss}) {
      array->data += begin * array->row_strides[0];
    }
    piece.grad = piece.logits;
    piece.grad.data = reinterpret_cast<char*>(residual.get());
    solve(piece, 1, kCallingThread);
    stand(standing, begin, begin + count, residual.get());
  }

  void rank_all() {
    const auto rank_piece = [](void* self, int64_t, int64_t piece) {
      const auto& ranking = *static_cast<const Ranking*>(self);
      ranking.rank(piece * ranking.rows_of_piece());
    };
    const int64_t pieces = (problem.rows.count + rows_of_piece() - 1) / rows_of_piece();
    our_threads.run(pieces, std::min(our_threads.most_workers(), pieces), rank_piece, this);
  }
};

void check(bool fits) {
  if (!fits) throw nb::value_error("crossent._core: the arrays of a block do not fit one another");
}

template <class T>
T* contiguous(const Operand& operand, int64_t count) {
  const Py_buffer& buffer = operand.buffer();
  check(buffer.len == count * static_cast<int64_t>(sizeof(T)) && PyBuffer_IsContiguous(&buffer, 'C'));
  return static_cast<T*>(buffer.buf);
}

template <class X>
void rank_block(const Operand& logits, nb::handle targets, nb::handle label, nb::handle loss, nb::handle rank,
                nb::handle answer, nb::handle near, nb::handle squares, double surely_right) {
  const int64_t rows = logits.shape[0], classes = logits.shape[1];
  const Operand target(targets, false), labels(label, false), losses(loss, true), ranks(rank, true);
  const Operand answers(answer, true), nears(near, true), sums(squares, true);
  const bool has_classes = target.dimensions == 2;
  check(target.shape[0] == rows && (!has_classes || target.shape[1] == classes));
  Ranking<X> ranking{};
  Standing<X>& standing = ranking.standing;
  standing.classes = classes;
  standing.logits = contiguous<X>(logits, rows * classes);
  standing.loss = contiguous<X>(losses, rows);
  standing.label = contiguous<int64_t>(labels, rows);
  standing.rank = contiguous<int64_t>(ranks, rows);
  standing.answer = contiguous<int64_t>(answers, rows);
  standing.near = contiguous<X>(nears, rows);
  standing.squares = contiguous<double>(sums, rows);
  standing.surely_right = surely_right;
  for (int64_t i = 0; i < rows; ++i) check(standing.label[i] >= 0 && standing.label[i] < classes);
  Problem& problem = ranking.problem;
  problem.classes = classes;
  problem.form = has_classes ? Targets::distribution : Targets::index;
  RowLayout layout(logits, 1);
  layout.add(problem.logits, logits, 1, "logits");
  layout.add(problem.targets, target, has_classes ? 1 : kNoClasses, "targets");
  layout.add(problem.loss, losses, kNoClasses, "loss");
  problem.rows = layout.settle();
  without_lock([&] { ranking.rank_all(); });
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
