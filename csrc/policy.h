// The policy maths of the exit step: accumulator, signals, recurrence and decision of one sample at
// one exit.
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

// The enumerations are part of the op's contract: the numbers come from Python.
enum class Keep : int32_t { kNever, kAgree, kEntropyBelow, kConfidenceAbove, kAlways, kNotScore };
inline constexpr int64_t kKeepKinds = 6;

enum class Gain : int32_t {
  kOne,
  kConfidence,
  kNegativeEntropy,
  kAgree,
  kEntropyBelow,
  kConfidenceAbove,
  kScore,
  kVotes,
};
inline constexpr int64_t kGainKinds = 8;

enum class Accumulate : int32_t { kNone, kVotes, kLogProbabilities };
inline constexpr int64_t kAccumulateKinds = 3;

enum class Scorer : int32_t { kNone, kRow, kNetwork };
inline constexpr int64_t kScorerKinds = 3;

// A policy at one exit: its kinds and its row of the policy table.
struct Policy {
  Keep keep;
  Gain gain;
  bool strict;     // exit at S > threshold rather than at S >= threshold
  bool last_exit;  // where every sample exits
  float weight;
  float threshold;
  float tau;
  Accumulate accumulate = Accumulate::kNone;
  Scorer scorer = Scorer::kNone;
};

// All that the signals need to know of the logits z. With a NaN among them, or an infinite maximum,
// rest is NaN.
//
// The sums omit the argmax's own term, which is 1 and 0: added to it, the small terms of a softmax
// that one logit dominates would lose their digits, and so would the entropy.
struct Reductions {
  int32_t argmax;       // lowest index of the maximum, or of the first NaN
  float rest;           // sum of exp(z - max z) over all classes but argmax
  float weighted_rest;  // sum of (z - max z) exp(z - max z), where -inf exp(-inf) counts as 0
};

struct Signals {
  int32_t prediction;
  float confidence;
  float entropy;  // normalised, in [0, 1]
  bool agrees;    // with the exit before; with one class see `close`
  float score;    // the learned score q, if the policy has a scorer
  float votes;    // of the majority class, if the policy accumulates votes
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
  // Rounding may exceed it. Written so that NaN passes through.
  if (entropy > 1.0f) entropy = 1.0f;
  return {logits.argmax, 1.0f / sum, entropy, logits.argmax == previous_prediction, 0.0f, 0.0f};
}

// With one class, regression, exits agree whose outputs differ by less than tau (PABEE, Eq. 3).
EEFAST_HOST_DEVICE inline bool close(const Policy& policy, float output, float before) {
  return fabsf(output - before) < policy.tau;
}

// ---- accumulators -------------------------------------------------------------------------------

// In the logits of a sample that exits, the majority is that much ahead of its votes, so that their
// argmax is the prediction even where classes are tied.
inline constexpr float kMajorityMargin = 0.5f;

// The signals of the majority, once the vote of this exit has been counted. One vote more can only
// make its own class the majority: the class with most votes, ties to the most recent prediction
// among them, is this exit's or the one before. `votes_of(class)` reads a count.
template <class VotesOf>
EEFAST_HOST_DEVICE inline Signals elect(
    Signals now, int32_t previous_prediction, float exits_met, VotesOf votes_of) {
  now.votes = votes_of(now.prediction);
  if (previous_prediction >= 0) {
    const float before = votes_of(previous_prediction);
    if (before > now.votes) {
      now.prediction = previous_prediction;
      now.votes = before;
    }
  }
  now.confidence = now.votes / exits_met;
  now.agrees = now.prediction == previous_prediction;
  return now;
}

// T_i, the sum of tau over the exits up to this one. `table` is [exits, 3].
EEFAST_HOST_DEVICE inline float total_tau(const float* table, int64_t exit) {
  float total = 0.0f;
  for (int64_t i = 0; i < exit; ++i) total += table[3 * i + 2];
  return total;
}

// ---- scorers ------------------------------------------------------------------------------------

EEFAST_HOST_DEVICE inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// NaN stays NaN.
EEFAST_HOST_DEVICE inline float leaky_relu(float x) { return x > 0.0f ? x : 0.01f * x; }

// Features of a network: probabilities, confidence, 1 - entropy, vote share, earlier scores.
EEFAST_HOST_DEVICE constexpr int64_t features(int64_t classes, int64_t exit) {
  return classes + 3 + (exit - 1);
}

// ---- recurrence and decision --------------------------------------------------------------------

// keep * previous_score. A score that is not kept is dropped rather than multiplied by 0: NaN must
// not outlive its exit.
EEFAST_HOST_DEVICE inline float kept(
    const Policy& policy, const Signals& now, float previous_score) {
  switch (policy.keep) {
    case Keep::kNever: return 0.0f;
    case Keep::kAgree: return now.agrees ? previous_score : 0.0f;
    case Keep::kEntropyBelow: return now.entropy < policy.tau ? previous_score : 0.0f;
    case Keep::kConfidenceAbove: return now.confidence > policy.tau ? previous_score : 0.0f;
    case Keep::kAlways: return previous_score;
    case Keep::kNotScore: return (1.0f - now.score) * previous_score;
  }
  return 0.0f;
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
    case Gain::kScore: return policy.weight * now.score;
    case Gain::kVotes: return policy.weight * now.votes;
  }
  return 0.0f;
}

// S_i = keep_i * S_(i-1) + weight_i * gain_i.
EEFAST_HOST_DEVICE inline float next_score(
    const Policy& policy, const Signals& now, float previous_score) {
  return kept(policy, now, previous_score) + gained(policy, now);
}

// Whether the sample exits here. No comparison with NaN holds.
EEFAST_HOST_DEVICE inline bool exits(const Policy& policy, float score) {
  return policy.last_exit || (policy.strict ? score > policy.threshold : score >= policy.threshold);
}

}  // namespace eefast
