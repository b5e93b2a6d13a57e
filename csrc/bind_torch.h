// Adds to the module what PyTorch's tensors need: arrays by address, and PyTorch's own threads.
#pragma once

#include <nanobind/nanobind.h>

namespace crossent {

void bind_pointers(nanobind::module_& module);

}  // namespace crossent
