// Adds what an evaluation asks of a block (standings.h) to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace crossent {

void bind_standings(nanobind::module_& module);

}  // namespace crossent
