// Where each row's label stands among its logits, and the squared length of p - y: what an evaluation asks of a block
// beyond the loss. Compiled once for each instruction set. N rows, C classes, contiguous.
#pragma once

#include <cstdint>

namespace crossent {

template <class X>
struct Standing {
  int64_t classes;
  const X* logits;       // (N, C)
  X* loss;               // (N), -log p of the target
  const int64_t* label;  // (N), each in [0, C)
  int64_t* rank;         // 1 is the largest logit; of equals the smaller class comes first
  int64_t* answer;       // the largest logit's class, the first of several
  X* near;               // p - y of the answer
  double* squares;       // sum_k (p_k - y_k)^2
  double surely_right;   // rows of a smaller loss have rank 1, and the label is the answer
};

// Of rows [begin, end), whose losses are known; residual: p - y of these rows.
struct Standings {
  void (*floats)(const Standing<float>&, int64_t begin, int64_t end, const float* residual);
  void (*doubles)(const Standing<double>&, int64_t begin, int64_t end, const double* residual);
};

}  // namespace crossent
