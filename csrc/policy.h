// The policy maths of the exit step: signals, recurrence and decision of one sample at one exit.
//
// Free of torch and of vectors, so that every kernel shares it, on the host and on a device.

#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__) || defined(__HIPCC__)
#define EEFAST_HOST_DEVICE __host__ __device__
#else
#define EEFAST_HOST_DEVICE
#endif

namespace eefast {

// Both enumerations are part of the op's contract: the numbers come from Python.
enum class Keep : int32_t { kNever, kAgree, kEntropyBelow, kConfidenceAbove, kAlways };
inline constexpr int64_t kKeepKinds = 5;

enum class Gain : int32_t {
  kOne,
  kConfidence,
  kNegativeEntropy,
  kAgree,
  kEntropyBelow,
  kConfidenceAbove,
};
inline constexpr int64_t kGainKinds = 6;

// A policy at one exit: its kinds and its row of the policy table.
struct Policy {
  Keep keep;
  Gain gain;
  bool strict;     // leave at S > threshold rather than at S >= threshold
  bool last_exit;  // where every sample leaves
  float weight;
  float threshold;
  float tau;
};

// All that the signals need to know of the logits z. With a NaN among them, or an infinite maximum,
// rest is NaN.
//
// The argmax's own term, which is 1 and 0, is left out of the sums: added to it, the small terms of
// a dominated softmax would lose their digits, and the entropy with them.
struct Reductions {
  int32_t argmax;       // lowest index of the maximum, or of the first NaN
  float rest;           // sum of exp(z - max z) over all classes but argmax
  float weighted_rest;  // sum of (z - max z) exp(z - max z), where -inf exp(-inf) counts as 0
};

struct Signals {
  int32_t prediction;
  float confidence;
  float entropy;  // normalised, in [0, 1]
  bool agrees;    // with the prediction of the exit before
};

// What the entropy is divided by. One class has no entropy to normalise: 0 / 1.
EEFAST_HOST_DEVICE inline float largest_entropy(int64_t classes) {
  return classes > 1 ? logf(static_cast<float>(classes)) : 1.0f;
}

EEFAST_HOST_DEVICE inline Signals signals(
    const Reductions& logits, int32_t previous_prediction, float largest_entropy) {
  const float sum = 1.0f + logits.rest;
  // ln sum - weighted_rest / sum. Neither term is negative, so that nothing cancels.
  float entropy = (log1pf(logits.rest) - logits.weighted_rest / sum) / largest_entropy;
  // Rounding may step over it. Written so that NaN passes through.
  if (entropy > 1.0f) entropy = 1.0f;
  return {logits.argmax, 1.0f / sum, entropy, logits.argmax == previous_prediction};
}

EEFAST_HOST_DEVICE inline bool keeps(const Policy& policy, const Signals& now) {
  switch (policy.keep) {
    case Keep::kNever: return false;
    case Keep::kAgree: return now.agrees;
    case Keep::kEntropyBelow: return now.entropy < policy.tau;
    case Keep::kConfidenceAbove: return now.confidence > policy.tau;
    case Keep::kAlways: return true;
  }
  return false;
}

// weight * gain, where an indicator that does not hold adds 0 whatever the weight.
EEFAST_HOST_DEVICE inline float gained(const Policy& policy, const Signals& now) {
  switch (policy.gain) {
    case Gain::kOne: return policy.weight;
    case Gain::kConfidence: return policy.weight * now.confidence;
    case Gain::kNegativeEntropy: return policy.weight * -now.entropy;
    case Gain::kAgree: return now.agrees ? policy.weight : 0.0f;
    case Gain::kEntropyBelow: return now.entropy < policy.tau ? policy.weight : 0.0f;
    case Gain::kConfidenceAbove: return now.confidence > policy.tau ? policy.weight : 0.0f;
  }
  return 0.0f;
}

// S_i = keep_i * S_(i-1) + weight_i * gain_i. A score that is not kept is dropped rather than
// multiplied by 0: NaN must not outlive its exit.
EEFAST_HOST_DEVICE inline float next_score(
    const Policy& policy, const Signals& now, float previous_score) {
  return (keeps(policy, now) ? previous_score : 0.0f) + gained(policy, now);
}

// Whether the sample leaves here. No comparison with NaN holds.
EEFAST_HOST_DEVICE inline bool leaves(const Policy& policy, float score) {
  return policy.last_exit || (policy.strict ? score > policy.threshold : score >= policy.threshold);
}

}  // namespace eefast
