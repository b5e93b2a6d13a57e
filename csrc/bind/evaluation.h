// Adds what an evaluation asks of a block (kernels/standings.h) to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace crossent {

void bind_evaluation(nanobind::module_& module);

}  // namespace crossent
