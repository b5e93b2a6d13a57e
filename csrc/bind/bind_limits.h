// Adds the machine's own limits (limits.h) to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace crossent {

void bind_limits(nanobind::module_& module);

}  // namespace crossent
