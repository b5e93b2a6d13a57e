// The two ways that a row can go: plain (float or double, one exponential a class, kept for the gradient) and general
// (any option, in double). Each sums a segment, finishes a group of rows and writes a segment of a gradient.
#pragma once

#include "general.h"
#include "group.h"

namespace crossent {
namespace {

inline bool computes_in_double(const Problem& problem) { return problem.logits.type == Type::float64; }

// Scores of which only lse is wanted.
inline bool is_lse_alone(const Problem& problem) {
  return problem.output == Output::scores && problem.form == Targets::none && !problem.loss && !problem.entropy &&
         !problem.argmax;
}

inline bool is_general(const Problem& problem) {
  const bool in_double = computes_in_double(problem);
  const bool smooth = problem.form == Targets::index && !in_double;
  const bool plain_output =
      problem.output == Output::loss || problem.output == Output::softmax || (is_lse_alone(problem) && !in_double);
  return (has_mass(problem) && !smooth) || problem.options.softcap != 0 || problem.options.logit_scale != 1 ||
         !plain_output;
}

// Writes the target's element of a row's gradient.
CROSSENT_INLINE void write_own(const Problem& problem, const RowGroup& group, int row) {
  set_element(problem.grad, group.grad[row] + group.target[row] * problem.grad.class_stride,
              group.grad_loss[row] * group.grad_anchor[row]);
}

template <class X>
struct PlainRows {
  using Number = X;

  static void start(const Problem& problem, const RowGroup& group, int row, Sums<X>& sums) {
    const int64_t target = group.target[row];
    if (target < 0) return;
    const double logit = element(problem.logits, group.logits[row] + target * problem.logits.class_stride);
    sums.anchor_logit = logit;
    if (logit > -kInfinity<double> && logit < kInfinity<double>) sums.anchor = target;
  }
  static void sum(const Problem& problem, const RowGroup& group, int row, int64_t begin, int64_t end, X* keep,
                  BlockReference<X>* references, Sums<X>& sums) {
    sum_row<X>(problem, group.logits[row], begin, end, keep, references, sums);
  }
  static void join(const Problem&, const Sums<X>& next, Sums<X>& sums) { merge(next, sums); }
  static void take(const Problem&, RowGroup& group, int row, const Sums<X>& sums) {
    group.linear[row] = sums.linear.value();
  }
  static void finish(const Problem& problem, RowGroup& group) {
    exact_terms_of_group<X, false>(group);
    finish_group<X>(problem, group, has_mass(problem));
  }
  static void write(const Problem& problem, const RowGroup& group, int row, int64_t begin, int64_t end, const X* keep,
                    const BlockReference<X>* references, const Sums<X>& sums) {
    const Scale scale{group.factor[row], group.grad_loss[row] * even_mass(problem)};
    write_row_gradient<X>(problem, group.logits[row], group.grad[row], begin, end, keep, references, sums.reference,
                          scale);
    if (group.target[row] >= begin && group.target[row] < end) write_own(problem, group, row);
  }
};

struct GeneralRows {
  using Number = double;

  static void start(const Problem& problem, RowGroup& group, int row, Sums<double>&) {
    const int64_t target = group.target[row];
    if (target < 0) return;
    group.target_logit[row] = target_logit(problem, group.logits[row], target, &group.target_tail[row]);
  }
  static void sum(const Problem& problem, const RowGroup& group, int row, int64_t begin, int64_t end, double*,
                  BlockReference<double>* references, Sums<double>& sums) {
    sum_general_row(problem, GeneralRow(group, row), begin, end, references, sums);
  }
  static void join(const Problem&, const Sums<double>& next, Sums<double>& sums) { merge_general(next, sums); }
  // The one-hot part of an index target joins the other masses.
  static void take(const Problem&, RowGroup& group, int row, const Sums<double>& sums) {
    group.mass[row] = sums.mass.value();
    group.anchor_mass[row] = sums.anchor_mass;
    group.linear[row] = sums.linear.value();
    const double onehot = group.target_mass[row];
    if (group.target[row] < 0 || onehot == 0) return;
    if (group.target[row] == sums.anchor) {
      group.anchor_mass[row] += onehot;
    } else {
      group.linear[row] -=
          onehot * ((sums.anchor_logit - group.target_logit[row]) + (sums.anchor_tail - group.target_tail[row]));
    }
  }
  static void finish(const Problem& problem, RowGroup& group) {
    exact_terms_of_group<double, true>(group);
    finish_group<double>(problem, group, true);
  }
  static void write(const Problem& problem, const RowGroup& group, int row, int64_t begin, int64_t end, const double*,
                    const BlockReference<double>* references, const Sums<double>& sums) {
    const Finished finished{group, row, sums};
    const GeneralRow operands(group, row);
    char* const grad = group.grad[row];
    if (problem.output == Output::product) {
      write_product(problem, operands, grad, begin, end, references, finished);
    } else if (problem.output == Output::log_softmax) {
      write_log_softmax(problem, operands, grad, begin, end, finished);
    } else {
      write_general_gradient(problem, operands, grad, begin, end, references, finished);
    }
  }
};

}  // namespace
}  // namespace crossent
