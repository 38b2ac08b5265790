// From what the head gave for one row to what the policy decides by, by one warp.
//
// Lane l takes classes l, l + 32, ... everywhere: what it writes of a class, it alone reads again.

#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "exit_step.h"

namespace eefast::cuda {

inline constexpr unsigned kAllLanes = 0xFFFFFFFF;

__device__ inline int lane() { return threadIdx.x % kWarpSize; }
__device__ inline int warp() { return threadIdx.x / kWarpSize; }

__device__ inline float sum_of_lanes(float value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// ---- logits -------------------------------------------------------------------------------------

struct Logit {
  float value;
  int32_t index;
};

// The first NaN, or else the first of the largest.
__device__ inline Logit larger(Logit a, Logit b) {
  const bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
  if (a_is_nan != b_is_nan) return a_is_nan ? a : b;
  if (!a_is_nan && a.value != b.value) return a.value > b.value ? a : b;
  return a.index < b.index ? a : b;
}

__device__ inline Logit largest_of_lanes(Logit best) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const float value = __shfl_xor_sync(kAllLanes, best.value, distance);
    best = larger(best, {value, __shfl_xor_sync(kAllLanes, best.index, distance)});
  }
  return best;
}

__device__ inline Logit largest(const float* logits, int64_t classes) {
  const auto last = static_cast<int32_t>(classes);
  Logit best = {-INFINITY, last};
  for (int32_t c = lane(); c < last; c += kWarpSize) best = larger(best, {logits[c], c});
  return largest_of_lanes(best);
}

// One logit, which its lane tells the others.
__device__ inline float logit_of(const float* logits, int32_t index) {
  const int32_t owner = index % kWarpSize;
  return __shfl_sync(kAllLanes, lane() == owner ? logits[index] : 0.0f, owner);
}

__device__ inline Reductions reduce(const float* logits, int64_t classes) {
  const auto last = static_cast<int32_t>(classes);
  const Logit best = largest(logits, classes);
  if (best.value != best.value) return {best.index, best.value, best.value};

  float rest = 0.0f, weighted_rest = 0.0f;
  for (int32_t c = lane(); c < last; c += kWarpSize) {
    if (c == best.index) continue;
    const float x = logits[c] - best.value, e = expf(x);
    rest += e;
    if (e > 0.0f) weighted_rest += x * e;  // x may be -infinity where e is 0
  }
  const float nan_if_infinite = best.value - best.value;
  return {best.index, sum_of_lanes(rest) + nan_if_infinite, sum_of_lanes(weighted_rest)};
}

// Adds what the head reads of `before`, the logits of the exit before.
__device__ inline void add_cascade(const ExitStep& step, const float* before, float* logits) {
  for (int64_t c = lane(); c < step.classes; c += kWarpSize) {
    float sum = 0.0f;
    for (int64_t k = 0; k < step.classes; ++k) {
      sum = fmaf(step.cascade[c * step.classes + k], before[k], sum);
    }
    logits[c] += sum;
  }
}

// ---- accumulators -------------------------------------------------------------------------------

// Adds tau z to the sum of the exits before, and makes the logits that sum over the sum of all tau:
// those of the exits' weighted geometric mean.
__device__ inline void ensemble(const ExitStep& step, float* summed, float* logits) {
  const float tau = step.table[3 * step.exit - 1], total = total_tau(step.table, step.exit);
  for (int64_t c = lane(); c < step.classes; c += kWarpSize) {
    if (tau != 0.0f) summed[c] = fmaf(tau, logits[c], summed[c]);  // z may be infinite
    if (total != 0.0f) logits[c] = summed[c] / total;
  }
}

__device__ inline void temper(const ExitStep& step, float* logits) {
  const float tau = step.table[3 * step.exit - 1];
  for (int64_t c = lane(); c < step.classes; c += kWarpSize) logits[c] *= tau;
}

// The probabilities so far, or of the streak, take this exit's; or its logits take the place of less
// confident ones.
__device__ inline void gather(
    const ExitStep& step, const Policy& policy, bool first, const Reductions& reductions,
    const Signals& now, const float* logits, float* gathered) {
  const int64_t classes = step.classes;
  if (step.accumulate == Accumulate::kMostConfident) {
    const float most = first ? 0.0f : confidence(reduce(gathered, classes));
    if (!first && !more_confident(now.confidence, most)) return;
    for (int64_t c = lane(); c < classes; c += kWarpSize) gathered[c] = logits[c];
    return;
  }
  const bool adds = step.accumulate == Accumulate::kMean || keeps(policy, now);
  const float maximum = logit_of(logits, reductions.argmax), sum = 1.0f + reductions.rest;
  for (int64_t c = lane(); c < classes; c += kWarpSize) {
    gathered[c] = adds ? gathered[c] + expf(logits[c] - maximum) / sum : 0.0f;
  }
}

// Makes the logits ln of the mean of what was gathered, or those of the most confident exit at the
// last; else they stay as they are. The answer's class.
__device__ inline int32_t answer(const ExitStep& step, const float* gathered, float* logits) {
  const int64_t classes = step.classes;
  const bool mean = step.accumulate != Accumulate::kMostConfident;
  float total = 0.0f;
  for (int64_t c = lane(); c < classes && mean; c += kWarpSize) total += gathered[c];
  total = sum_of_lanes(total);
  if (mean ? total != 0.0f : step.last_exit) {
    for (int64_t c = lane(); c < classes; c += kWarpSize) {
      logits[c] = mean ? logf(gathered[c] / total) : gathered[c];
    }
  }
  return largest(logits, classes).index;
}

// How many votes there are, and how many has the class that has most, once `vote` is cast.
struct Tally {
  float all;
  float most;
};

__device__ inline Tally tally(const float* votes, int64_t classes, int32_t vote) {
  float all = 0.0f;
  Logit most = {0.0f, 0};
  for (int32_t c = lane(); c < classes; c += kWarpSize) {
    const float value = votes[c] + (c == vote ? 1.0f : 0.0f);
    all += value;
    most = larger(most, {value, c});
  }
  return {sum_of_lanes(all), largest_of_lanes(most).value};
}

// Makes the votes the logits, `vote` among them.
__device__ inline void ballots(
    const float* votes, int64_t classes, int32_t vote, int32_t majority, float* logits) {
  for (int32_t c = lane(); c < classes; c += kWarpSize) {
    logits[c] = votes[c] + (c == vote ? 1.0f : 0.0f) + (c == majority ? kMajorityMargin : 0.0f);
  }
}

// ---- scorer -------------------------------------------------------------------------------------

// sigmoid(sum_h out_h leaky_relu(w_h . f + b_h)), EENet's Eq. 5 to 9. The features f are the
// probabilities exp(logit - maximum) / sum, three numbers more, and the scores of earlier exits.
__device__ inline float network_score(
    const ExitStep& step, const float* logits, float maximum, float sum, const Signals& now,
    float share, const float* memory) {
  const int64_t classes = step.classes, before = step.exit - 1;
  const int64_t width = features(classes, step.exit) + 2;  // bias and output weight
  float total = 0.0f;
  for (int64_t unit = 0; unit < step.units; ++unit) {
    const float* weight = step.network + unit * width;
    float x = 0.0f;
    for (int32_t c = lane(); c < classes; c += kWarpSize) {
      x = fmaf(weight[c], expf(logits[c] - maximum) / sum, x);
    }
    weight += classes;
    for (int64_t i = lane(); i < before; i += kWarpSize) x = fmaf(weight[3 + i], memory[i], x);
    x = sum_of_lanes(x) + weight[0] * now.confidence + weight[1] * (1.0f - now.entropy) +
        weight[2] * share + weight[3 + before];
    total += weight[4 + before] * leaky_relu(x);
  }
  return sigmoid(total);
}

}  // namespace eefast::cuda
