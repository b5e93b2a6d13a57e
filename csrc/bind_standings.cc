// What an evaluation asks of a block, for Python: loss, and piece by piece what p - y and the logits say.
#include "bind_standings.h"

#include <memory>

#include "bind_buffer.h"
#include "bind_problem.h"
#include "standings.h"
#include "threads.h"

namespace nb = nanobind;

namespace crossent {

#if defined(CROSSENT_X86)
extern const Standings standings_x86_64_v4, standings_x86_64_v3;
#elif defined(CROSSENT_NEON)
extern const Standings standings_neon;
#endif
extern const Standings standings_baseline;

namespace {

// Those of the instruction set in use.
const Standings& standings() {
  static const Standings* const all[] = {
#if defined(CROSSENT_X86)
      &standings_x86_64_v4, &standings_x86_64_v3,
#elif defined(CROSSENT_NEON)
      &standings_neon,
#endif
      &standings_baseline};
  return in_use(all);
}

void run(const Standing<float>& standing, int64_t rows, int64_t classes) {
  standings().floats(standing, rows, classes);
}
void run(const Standing<double>& standing, int64_t rows, int64_t classes) {
  standings().doubles(standing, rows, classes);
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
struct JudgedBlock {
  Array logits, targets;
  Targets form;
  int64_t rows, classes;
  Standing<X> standing;  // its residual is found piece by piece

  void judge(int64_t begin, int64_t end) const {
    const FloatMode mode;
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
    answer(problem, false, 0, 1, {serially, 0});
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
X* contiguous(const Buffer& buffer, int64_t count) {
  check(buffer.view().len == count * static_cast<int64_t>(sizeof(X)) && PyBuffer_IsContiguous(&buffer.view(), 'C'));
  return static_cast<X*>(buffer.view().buf);
}

template <class X>
void judge(const Buffer& logits, nb::handle targets, nb::handle label, nb::handle loss, nb::handle rank,
           nb::handle answer, nb::handle near, nb::handle squares, double surely_right) {
  const int64_t rows = logits.view().shape[0], classes = logits.view().shape[1];
  const Buffer target(targets, false), labels(label, false), losses(loss, true), ranks(rank, true);
  const Buffer answers(answer, true), nears(near, true), sums(squares, true);
  const int64_t row_bytes = classes * static_cast<int64_t>(sizeof(X));
  const Targets form = target.view().ndim == 1 ? Targets::index : Targets::distribution;
  JudgedBlock<X> block{describe(logits, false), describe(target, false), form, rows, classes, {}};
  block.standing = {contiguous<X>(logits, rows * classes),
                    nullptr,
                    contiguous<X>(losses, rows),
                    contiguous<int64_t>(labels, rows),
                    contiguous<int64_t>(ranks, rows),
                    contiguous<int64_t>(answers, rows),
                    contiguous<X>(nears, rows),
                    contiguous<double>(sums, rows),
                    surely_right};
  check(target.view().shape[0] == rows && (form == Targets::index || target.view().shape[1] == classes));
  block.logits.row_strides = &row_bytes;
  block.logits.class_stride = sizeof(X);
  const int64_t target_stride = target.view().strides[0];
  block.targets.row_strides = &target_stride;
  block.targets.class_stride = form == Targets::index ? 0 : target.view().strides[1];
  for (int64_t i = 0; i < rows; ++i) check(block.standing.label[i] >= 0 && block.standing.label[i] < classes);
  const nb::gil_scoped_release release;
  const int64_t step = rows_at_once(classes);
  const auto pieces = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) block.judge(i * step, (i + 1) * step < rows ? (i + 1) * step : rows);
  };
  parallel_for(
      (rows + step - 1) / step,
      [](void* context, int64_t begin, int64_t end) { (*static_cast<const decltype(pieces)*>(context))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&pieces)));
}

void judge_rows(nb::handle logits, nb::handle targets, nb::handle label, nb::handle loss, nb::handle rank,
                nb::handle answer, nb::handle near, nb::handle squares, double surely_right) {
  const Buffer buffer(logits, false);
  const auto judge_as = buffer.view().itemsize == 8 ? judge<double> : judge<float>;
  judge_as(buffer, targets, label, loss, rank, answer, near, squares, surely_right);
}

}  // namespace

void bind_standings(nb::module_& module) {
  module.def("judge_rows", &judge_rows, nb::arg("logits"), nb::arg("targets"), nb::arg("label"), nb::arg("loss"),
             nb::arg("rank"), nb::arg("answer"), nb::arg("near"), nb::arg("squares"), nb::arg("surely_right"));
}

}  // namespace crossent
