// Results that are one number a row: losses and scores.
#pragma once

#include "path.h"

namespace crossent {
namespace {

struct Largest {
  int64_t index = 0;
  double value = -kInfinity<double>;
};

// The first maximum of a row's logits as they are scaled, a nan before any number: for rows with an infinity or a nan,
// and for capped logits, where many may reach the cap.
inline Largest largest_of_row(const Problem& problem, const char* row) {
  Largest best;
  for (int64_t k = 0; k < problem.classes; ++k) {
    const double value = problem.options.logit_scale * element(problem.logits, row + k * problem.logits.class_stride);
    if (value > best.value || value != value) best = {k, value};
    if (value != value) break;
  }
  return best;
}

// Writes one number for every row of a group.
inline void put(const Problem& problem, const RowRun& run, const Array& array, int64_t first, int count,
                const double* values) {
  if (!array) return;
  char* at[kGroup];
  place(problem, run, array, first, count, at);
  for (int i = 0; i < count; ++i) set_element(array, at[i], values[i]);
}

// nll, lse, entropy and argmax; the anchor is the largest class.
inline void record_scores(const Problem& problem, const RowGroup& group, int64_t first, const int64_t* anchors) {
  double nll[kGroup], lse[kGroup], entropy[kGroup], argmax[kGroup];
  for (int r = 0; r < group.rows; ++r) {
    const double core = group.core[r];
    const bool regular = core == core && anchors[r] >= 0;
    Largest largest{anchors[r], group.anchor_logit[r]};
    if (!regular || problem.options.softcap != 0) largest = largest_of_row(problem, group.logits[r]);
    const double behind =
        (group.anchor_logit[r] - group.target_logit[r]) + (group.anchor_tail[r] - group.target_tail[r]);
    nll[r] = group.target[r] == anchors[r] ? core : behind + core;
    nll[r] = group.ignored(r) ? 0 : regular ? nll[r] : kNan<double>;
    lse[r] = regular ? group.anchor_logit[r] + (group.anchor_tail[r] + core) : largest.value;
    entropy[r] = regular ? core - group.entropy_sum[r] / group.sum_all[r] : kNan<double>;
    argmax[r] = static_cast<double>(largest.index);
  }
  const RowRun run(problem.rows, first, group.rows);
  put(problem, run, problem.loss, first, group.rows, nll);
  put(problem, run, problem.lse, first, group.rows, lse);
  put(problem, run, problem.entropy, first, group.rows, entropy);
  put(problem, run, problem.argmax, first, group.rows, argmax);
}

// lse below this has lost digits in the sum of all exponentials, which is 1 but for them.
constexpr double kNearZero = 0x1p-28;

// lse = m + log(1 + sum of the others' exp(a - m)), one class after the other: for rows whose lse is near 0.
inline double lse_near_zero(const Problem& problem, const char* row) {
  const Largest largest = largest_of_row(problem, row);
  Total others;
  for (int64_t k = 0; k < problem.classes; ++k) {
    const double logit = element(problem.logits, row + k * problem.logits.class_stride);
    if (k != largest.index) others.add(exp_one(logit - largest.value, 0, Reference<double>{}));
  }
  return largest.value + log_ratio<double>(broadcast(1.0), broadcast(others.value()))[0];
}

inline void record_lse(const Problem& problem, const RowGroup& group, int64_t first) {
  double lse[kGroup];
  for (int r = 0; r < group.rows; ++r) {
    const bool regular = group.lse[r] == group.lse[r];
    lse[r] = regular ? group.lse[r] : largest_of_row(problem, group.logits[r]).value;
    if (-kNearZero < lse[r] && lse[r] < kNearZero) lse[r] = lse_near_zero(problem, group.logits[r]);
  }
  put(problem, RowRun(problem.rows, first, group.rows), problem.lse, first, group.rows, lse);
}

// Records what is one number a row, and adds the losses to `sum`.
inline void record_group(const Problem& problem, RowGroup& group, int64_t first, const int64_t* anchors, LossSum& sum) {
  if (problem.output == Output::scores) {
    if (is_general(problem)) return record_scores(problem, group, first, anchors);
    return record_lse(problem, group, first);
  }
  for (int r = 0; r < group.rows; ++r) group.loss[r] = group.ignored(r) ? 0 : group.loss[r];
  if (problem.loss) {
    put(problem, RowRun(problem.rows, first, group.rows), problem.loss, first, group.rows, group.loss);
  }
  sum.add(group.loss, group.rows);
}

}  // namespace
}  // namespace crossent
