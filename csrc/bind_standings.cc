// Standings for Python: one block, on the calling thread.
#include "bind_standings.h"

#include "bind_buffer.h"
#include "standings.h"

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

void check(bool fits) {
  if (!fits) throw nb::value_error("crossent._core: buffers of standings do not fit one another");
}

void run(const Standing<float>& standing, int64_t rows, int64_t classes) {
  standings().floats(standing, rows, classes);
}
void run(const Standing<double>& standing, int64_t rows, int64_t classes) {
  standings().doubles(standing, rows, classes);
}

template <class X>
void stand(nb::handle logits, nb::handle residual, nb::handle label, nb::handle wanted, nb::handle rank,
           nb::handle answer, nb::handle squares, int64_t classes) {
  const Bytes from_logits(logits, false), from_residual(residual, false), labels(label, false), marks(wanted, false);
  const Bytes ranks(rank, true), answers(answer, true), sums(squares, true);
  const int64_t rows = marks.size(), size = rows * classes * static_cast<int64_t>(sizeof(X));
  check(from_logits.size() == size && from_residual.size() == size);
  check(labels.size() == 8 * rows && ranks.size() == 8 * rows && answers.size() == 8 * rows && sums.size() == 8 * rows);
  const Standing<X> standing{
      reinterpret_cast<const X*>(from_logits.data()),  reinterpret_cast<const X*>(from_residual.data()),
      reinterpret_cast<const int64_t*>(labels.data()), reinterpret_cast<const bool*>(marks.data()),
      reinterpret_cast<int64_t*>(ranks.data()),        reinterpret_cast<int64_t*>(answers.data()),
      reinterpret_cast<double*>(sums.data()),
  };
  for (int64_t i = 0; i < rows; ++i) check(standing.label[i] >= 0 && standing.label[i] < classes);
  const nb::gil_scoped_release release;
  run(standing, rows, classes);
}

}  // namespace

void bind_standings(nb::module_& module) {
  const auto define = [&](const char* name, auto function) {
    module.def(name, function, nb::arg("logits"), nb::arg("residual"), nb::arg("label"), nb::arg("wanted"),
               nb::arg("rank"), nb::arg("answer"), nb::arg("squares"), nb::arg("classes"));
  };
  define("stand_floats", &stand<float>);
  define("stand_doubles", &stand<double>);
}

}  // namespace crossent
