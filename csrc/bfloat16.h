// bfloat16 to float32 and back, whole matrices at a time, for matrix products that take one or the other.
#pragma once

#include <cstdint>

#include "crossent.h"

namespace crossent {

// Converts `count` numbers; exact.
void widen_bfloat16(const char* from, int64_t count, float* to, ParallelFor parallel_for);

// Rounds rows of float32 to bfloat16 where they lie: each row ends up in the first half of its own memory.
void narrow_rows_to_bfloat16(float* data, int64_t rows, int64_t columns, ParallelFor parallel_for);

}  // namespace crossent
