// A row with any option, in double: targets that are distributions, smoothing, scaled and capped logits, scores, and
// the Hessian's product. Nothing is kept between the passes but sums: the second pass computes the exponentials again.
//   mass_k  = weight_k q_k without the one-hot part,  Z = 2 z_loss lse
//   dl/du_k = p_k (W + Z) - mass_k,  dl/da_k = s_k dl/du_k
#pragma once

#include "finish.h"
#include "logits.h"
#include "row_gradient.h"

namespace crossent {
namespace {

// Classes [at, at + count) of one row: their logits, masses and exponentials.
struct Block {
  int64_t at = 0;
  int count = 0;
  LogitBlock logits;
  alignas(64) double mass[kBlock<double>];
  alignas(64) double exps[kBlock<double>];
};

// mass_k = weight_k ((1 - label_smoothing) target_k + label_smoothing / C), the target only of a distribution.
inline void stage_mass(const Problem& problem, const char* target_row, int64_t at, int count, double* mass) {
  const double even = even_mass(problem);
  const double* target = nullptr;
  if (problem.form == Targets::distribution) {
    const int64_t stride = problem.targets.class_stride;
    target = stage(problem.targets, target_row + at * stride, stride, count, mass);
  }
  const double kept = 1 - problem.options.label_smoothing;
  if (!target) {
    for (int i = 0; i < count; ++i) mass[i] = even;
  } else if (target != mass || kept != 1 || even != 0) {
    for (int i = 0; i < count; ++i) mass[i] = kept * target[i] + even;
  }
  const double* const weight = problem.weight ? problem.weight + at : nullptr;
  for (int i = 0; weight && i < count; ++i) mass[i] *= weight[i];
}

// exp(u + tail) against a reference, one number.
inline double exp_one(double u, double tail, const Reference<double>& reference) {
  return exp_biased<double, true, true>(broadcast(u), ExpConstants<double>(reference), broadcast(tail))[0] *
         ExpTable<double>::kUnbias;
}

// Makes `anchor` the class left out and measures the sums of differences from its logit.
inline void move_anchor(Sums<double>& sums, int64_t anchor, double logit, double tail, double mass) {
  const double from = sums.base(), from_tail = sums.anchor_tail;
  if (sums.anchor_logit > -kInfinity<double> && !sums.empty) {
    sums.add(exp_one(sums.anchor_logit, sums.anchor_tail, sums.reference));
  }
  sums.anchor = anchor;
  sums.anchor_logit = logit;
  sums.anchor_tail = tail;
  sums.anchor_mass = mass;
  const double change = (from - sums.base()) + (from_tail - tail);
  sums.linear.add(sums.mass.value() * change);
  sums.entropy_sum += (sums.others.sum + sums.others.lost) * change;
}

// The first largest class becomes the anchor: every u - u_anchor is then negative, and sums of them lose nothing.
inline void choose_anchor(const Problem& problem, const Block& block, double largest, Sums<double>& sums) {
  if (!(largest > sums.anchor_logit) || !(largest < kInfinity<double>)) return;
  int i = 0;
  while (block.logits.logits[i] != largest) ++i;
  move_anchor(sums, block.at + i, largest, block.logits.tails ? block.logits.tails[i] : 0,
              has_mass(problem) ? block.mass[i] : 0);
}

// sum of values * (u - base); where a value is 0 or exp(u) has vanished, an infinite u adds nothing.
inline Total sum_of_differences(const Block& block, const double* values, const Sums<double>& sums, bool vanishing) {
  const double base = sums.base();
  Lanes sum;
  const auto term = [&](int i, int width) {
    const V<double> value = load_first(values + i, width, 0.0);
    const V<double> u = load_first(block.logits.logits + i, width, base);
    V<double> difference = u - base;
    if (block.logits.tails) difference += load_first(block.logits.tails + i, width, 0.0) - sums.anchor_tail;
    const auto adds = vanishing ? u > -kInfinity<double> : value != 0.0;
    return adds ? value * difference : V<double>{};
  };
  for (int i = 0; i < block.count; i += kLanes<double>) {
    sum.add(term(i, block.count - i < kLanes<double> ? block.count - i : kLanes<double>));
  }
  return sum.total();
}

inline Total sum_of(const double* values, int count) {
  Lanes sum;
  for (int i = 0; i < count; i += kLanes<double>) {
    sum.add(load_first(values + i, count - i < kLanes<double> ? count - i : kLanes<double>, 0.0));
  }
  return sum.total();
}

// Where one row's operands lie.
struct GeneralRow {
  const char* logits = nullptr;
  const char* targets = nullptr;
  const char* vector = nullptr;

  GeneralRow(const RowGroup& group, int row)
      : logits(group.logits[row]), targets(group.targets[row]), vector(group.vector[row]) {}
};

// The exponentials of a staged block, without class `skip` in the sum they return; largest: of those summed.
inline Total exp_block(Block& block, int skip, double largest, const Reference<double>& reference) {
  const LogitBlock& logits = block.logits;
  if (!logits.tails) return sum_block<double, true>(logits.logits, block.count, skip, largest, reference, block.exps);
  return sum_block<double, true, true>(logits.logits, block.count, skip, largest, reference, block.exps, logits.tails);
}

// sum of exp(u) s v over a block.
inline double product_of(const Problem& problem, Block& block, const GeneralRow& row) {
  double buffer[kBlock<double>];
  const int64_t stride = problem.vector.class_stride;
  const double* v = stage(problem.vector, row.vector + block.at * stride, stride, block.count, buffer);
  Lanes sum;
  for (int i = 0; i < block.count; i += kLanes<double>) {
    const int width = block.count - i < kLanes<double> ? block.count - i : kLanes<double>;
    V<double> along = load_first(v + i, width, 0.0);
    if (block.logits.tails) along *= load_first(block.logits.slope + i, width, 0.0);
    sum.add(load_first(block.exps + i, width, 0.0) * along);
  }
  return sum.total().value() * ExpTable<double>::kUnbias;
}

inline void stage_block(const Problem& problem, const GeneralRow& row, int64_t at, int64_t end, Block& block) {
  block.at = at;
  block.count = static_cast<int>(end - at < kBlock<double> ? end - at : kBlock<double>);
  stage_logits(problem, row.logits, at, block.count, block.logits);
  if (has_mass(problem)) stage_mass(problem, row.targets, at, block.count, block.mass);
}

// Adds classes [begin, end) of one row to `sums`.
inline void sum_general_row(const Problem& problem, const GeneralRow& row, int64_t begin, int64_t end,
                            BlockReference<double>* references, Sums<double>& sums) {
  Block block;
  for (int64_t at = begin; at < end; at += kBlock<double>, ++references) {
    stage_block(problem, row, at, end, block);
    const double largest = block_max<double>(block.logits.logits, block.count);
    const bool counts = largest > -kInfinity<double> && largest < kInfinity<double>;
    choose_anchor(problem, block, largest, sums);
    const Reference<double> reference =
        counts ? reference_for(largest, sums.reference, sums.empty) : Reference<double>{};
    const int64_t anchor = sums.anchor - at;
    const int skip = counts && anchor >= 0 && anchor < block.count ? static_cast<int>(anchor) : -1;
    const double other = skip < 0 ? largest : largest_other<double>(block.logits.logits, block.count, skip);
    const Total sum = exp_block(block, skip, other, reference);
    sums.row_max = largest > sums.row_max ? largest : sums.row_max;
    *references = {reference, !counts};
    if (has_mass(problem)) {
      sums.linear.add(sum_of_differences(block, block.mass, sums, false), 1);
      sums.mass.add(sum_of(block.mass, block.count), 1);
    }
    if (counts) {
      const double factor = sums.join(reference);
      sums.add(sum, factor);
      if (problem.output == Output::scores) {
        sums.entropy_sum +=
            sum_of_differences(block, block.exps, sums, true).value() * ExpTable<double>::kUnbias * factor;
      }
      if (problem.output == Output::product) sums.product += product_of(problem, block, row) * factor;
    } else if (!(sum.sum < kInfinity<double>) || largest == kInfinity<double>) {
      sums.add(kNan<double>);
    }
  }
}

// Adds the sums of a row's next segment, whose anchor may be another class.
inline void merge_general(Sums<double> next, Sums<double>& sums) {
  const bool moves = next.anchor_logit > sums.anchor_logit;
  Sums<double>& loser = moves ? sums : next;
  const Sums<double>& winner = moves ? next : sums;
  move_anchor(loser, winner.anchor, winner.anchor_logit, winner.anchor_tail, winner.anchor_mass);
  merge(next, sums);
}

// What the second pass over a row reads: the finished numbers of its group.
struct Finished {
  const RowGroup& group;
  int row;
  const Sums<double>& sums;
};

// Calls write(block, share) for every block of classes [begin, end), with its exponentials computed again:
// exps * share = p.
template <class Write>
void for_each_block(const Problem& problem, const GeneralRow& row, int64_t begin, int64_t end,
                    const BlockReference<double>* references, const Finished& finished, Write write) {
  Block block;
  for (int64_t at = begin; at < end; at += kBlock<double>, ++references) {
    stage_block(problem, row, at, end, block);
    exp_block(block, -1, 0, references->reference);
    const double scale = ExpTable<double>::kUnbias / finished.group.sum_all[finished.row];
    double factor = references->empty ? 0 : ratio(references->reference, finished.sums.reference);
    if (factor < ExpTable<double>::kSmallestFactor) {
      // Their product would not be a normal number; the exponentials, which are biased, stay one where p is.
      for (int i = 0; i < block.count; ++i) block.exps[i] *= factor;
      factor = 1;
    }
    write(block, scale * factor);
  }
}

// dl/da = s (p (W + Z) - mass) grad_loss, the anchor's from the sum of the others.
inline void write_general_gradient(const Problem& problem, const GeneralRow& row, char* grad, int64_t begin,
                                   int64_t end, const BlockReference<double>* references, const Finished& finished) {
  const RowGroup& group = finished.group;
  const int r = finished.row;
  const double grad_loss = group.grad_loss[r];
  const double factor = group.factor[r] * group.sum_all[r];
  const int64_t stride = problem.grad.class_stride;
  const bool massive = has_mass(problem);
  for_each_block(problem, row, begin, end, references, finished, [&](Block& block, double share) {
    const V<double> positive = broadcast(share * factor), negative = broadcast(grad_loss);
    // A block's arrays have room for its last vector's empty lanes.
    for (int i = 0; i < block.count; i += kLanes<double>) {
      V<double> value = load(block.exps + i) * positive;
      if (massive) value -= load(block.mass + i) * negative;
      if (block.logits.tails) value *= load(block.logits.slope + i);
      store(block.exps + i, value);
    }
    const auto slope_of = [&](int64_t i) { return block.logits.tails ? block.logits.slope[i] : 1; };
    const int64_t target = group.target[r] - block.at, anchor = finished.sums.anchor - block.at;
    if (group.target[r] >= 0 && target >= 0 && target < block.count) {
      block.exps[target] -= group.target_mass[r] * grad_loss * slope_of(target);
    }
    if (anchor >= 0 && anchor < block.count) {
      block.exps[anchor] = group.grad_anchor[r] * grad_loss * slope_of(anchor);
    }
    unstage(problem.grad, grad + block.at * stride, stride, block.count, block.exps);
  });
}

// log softmax = (u - u_anchor) - core, the anchor being the largest class.
inline void write_log_softmax(const Problem& problem, const GeneralRow& row, char* out, int64_t begin, int64_t end,
                              const Finished& finished) {
  const int64_t stride = problem.grad.class_stride;
  const double core = finished.group.core[finished.row];
  Block block;
  for (int64_t at = begin; at < end; at += kBlock<double>) {
    stage_block(problem, row, at, end, block);
    for (int i = 0; i < block.count; ++i) {
      const double tail = block.logits.tails ? block.logits.tails[i] - finished.sums.anchor_tail : 0;
      block.exps[i] = ((block.logits.logits[i] - finished.sums.base()) + tail) - core;
    }
    unstage(problem.grad, out + at * stride, stride, block.count, block.exps);
  }
}

// H v = s [(W + Z) p (s v - p.sv) + 2 z_loss p (p.sv)] + dl/du u'' v, times grad_loss.
inline void write_product(const Problem& problem, const GeneralRow& row, char* out, int64_t begin, int64_t end,
                          const BlockReference<double>* references, const Finished& finished) {
  const RowGroup& group = finished.group;
  const int r = finished.row;
  const double z_slope = 2 * problem.options.z_loss, z = z_slope != 0 ? z_slope * group.lse[r] : 0;
  const double curve = group.target_mass[r] + group.mass[r] + z;
  const double mean = group.product[r] / group.sum_all[r];
  double buffer[kBlock<double>];
  for_each_block(problem, row, begin, end, references, finished, [&](Block& block, double share) {
    const int64_t stride = problem.vector.class_stride;
    const double* v = stage(problem.vector, row.vector + block.at * stride, stride, block.count, buffer);
    const bool bent = problem.options.softcap != 0;
    for (int i = 0; i < block.count; ++i) {
      const double p = block.exps[i] * share;
      const double slope = block.logits.tails ? block.logits.slope[i] : 1;
      const double straight = slope * (curve * p * (slope * v[i] - mean) + z_slope * p * mean);
      double grad = p * curve - (has_mass(problem) ? block.mass[i] : 0);
      if (block.at + i == group.target[r]) grad -= group.target_mass[r];
      if (block.at + i == finished.sums.anchor) grad = group.grad_anchor[r];
      block.exps[i] = group.grad_loss[r] * (bent ? straight + grad * block.logits.curvature[i] * v[i] : straight);
    }
    const int64_t to = problem.grad.class_stride;
    unstage(problem.grad, out + block.at * to, to, block.count, block.exps);
  });
}

}  // namespace
}  // namespace crossent
