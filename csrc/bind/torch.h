// What PyTorch brings: its threads, and memory that may want huge pages.
#pragma once

#include <nanobind/nanobind.h>

#include "core/crossent.h"

namespace crossent {

// PyTorch's threads where they are in use, else our own.
ParallelFor torch_threads();

void bind_torch(nanobind::module_& module);

}  // namespace crossent
