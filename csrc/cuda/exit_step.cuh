// The kernel of the exit step: up to kMaxRows rows, one launch.
//
// First all blocks share the largest matrix: the pooler, or the head if there is none. What they
// find goes to the scratch memory, and the last of them to be done does the rest alone: the head
// behind a pooler, the score, the decision and the state. No block waits for another, so that
// nothing depends on how many run at once.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstring>

#include "exit_step.h"
#include "score.cuh"

namespace eefast::cuda {

// ---- rows ---------------------------------------------------------------------------------------

// The rows whose samples are running.
struct Running {
  int count;
  int64_t sample[kMaxRows];
  int64_t offset[kMaxRows];  // of its vector in the hidden states
};

// All blocks find the same rows: only the block that finishes last writes exit_layer, and by then
// every block has read it.
__device__ inline void find_running(const ExitStep& step, Running& running) {
  if (warp() == 0) {
    const int row = lane();
    int64_t sample = 0;
    bool runs = false;
    if (row < step.rows) {
      sample = step.samples ? step.samples[row] : row;
      runs = step.exit_layer[sample] == 0;
    }
    const unsigned all = __ballot_sync(kAllLanes, runs);
    if (runs) {
      const int place = __popc(all & ((1u << row) - 1));
      running.sample[place] = sample;
      running.offset[place] = (step.offsets ? step.offsets[row] : row) * step.row_stride;
    }
    if (row == 0) running.count = __popc(all);
  }
  __syncthreads();
}

// ---- layers -------------------------------------------------------------------------------------

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <int kCount, class Element>
__device__ void load(const Element* from, float (&to)[kCount]) {
  if constexpr (kCount == 1) {
    to[0] = to_float(*from);
  } else {
    constexpr int kVector = kVectorBytes / sizeof(Element);
#pragma unroll
    for (int i = 0; i < kCount; i += kVector) {
      const uint4 vector = *reinterpret_cast<const uint4*>(from + i);
      Element elements[kVector];
      memcpy(elements, &vector, sizeof(vector));
#pragma unroll
      for (int j = 0; j < kVector; ++j) to[i + j] = to_float(elements[j]);
    }
  }
}

// This lane's share of the products of one row of weights with up to kTile rows.
template <int kCount, class Element, class RowAt>
__device__ void multiply(
    const Element* weight, int64_t width, RowAt row_at, int rows, float (&sums)[kTile]) {
  for (int64_t k = lane() * kCount; k < width; k += kWarpSize * kCount) {
    float w[kCount];
    load(weight + k, w);
#pragma unroll
    for (int r = 0; r < kTile; ++r) {
      if (r >= rows) break;
      float x[kCount];
      load(row_at(r) + k, x);
#pragma unroll
      for (int i = 0; i < kCount; ++i) sums[r] = fmaf(w[i], x[i], sums[r]);
    }
  }
}

// out[r][o] = finish(layer(row r)[o]), shared among warps of which this is number `first`. Each
// takes an output and a tile of rows at a time, so that weights are read once for every tile.
template <class Element, class RowAt, class Finish>
__device__ void apply(
    const Linear& layer, RowAt row_at, int rows, bool vectors, int64_t first, int64_t warps,
    float* out, Finish finish) {
  const int tiles = (rows + kTile - 1) / kTile;
  for (int64_t task = first; task < layer.outputs * tiles; task += warps) {
    const int64_t output = task / tiles;
    const int row = static_cast<int>(task % tiles) * kTile;
    const int in_tile = min(kTile, rows - row);
    const auto tile_at = [&](int r) { return row_at(row + r); };
    const auto* weight = static_cast<const Element*>(layer.weight) + output * layer.inputs;

    float sums[kTile] = {};
    if (vectors) {
      multiply<kVectorBytes / sizeof(Element)>(weight, layer.inputs, tile_at, in_tile, sums);
    } else {
      multiply<1>(weight, layer.inputs, tile_at, in_tile, sums);
    }
    float mine = 0.0f;
#pragma unroll
    for (int r = 0; r < kTile; ++r) {
      if (r >= in_tile) break;
      const float sum = sum_of_lanes(sums[r]);
      if (lane() == r) mine = sum;
    }
    if (lane() < in_tile) {
      if (layer.bias) mine += to_float(static_cast<const Element*>(layer.bias)[output]);
      out[(row + lane()) * layer.outputs + output] = finish(mine);
    }
  }
}

// ---- decision -----------------------------------------------------------------------------------

inline constexpr int32_t kNoPrediction = -1;

// What the policy decides by, and the exit's vote, where the policy accumulates or scores.
__device__ inline Signals score(
    const ExitStep& step, const Policy& policy, int64_t sample, float* votes, const float* memory,
    float* logits, int32_t& vote) {
  if (step.accumulate == Accumulate::kLogProbabilities) ensemble(step, votes, logits);
  if (step.accumulate == Accumulate::kTemperature) temper(step, logits);
  const Reductions reductions = reduce(logits, step.classes);
  Signals now = signals(reductions, kNoPrediction, largest_entropy(step.classes));
  const bool counts = counts_votes(step.accumulate, step.scorer);
  vote = counts ? now.prediction : -1;
  const Tally cast = counts ? tally(votes, step.classes, vote) : Tally{};
  const int32_t previous = __shfl_sync(kAllLanes, lane() ? 0 : step.prediction[sample], 0);
  if (step.accumulate == Accumulate::kVotes) {
    const auto votes_of = [&](int32_t c) { return votes[c] + (c == vote ? 1.0f : 0.0f); };
    now = elect(now, previous, cast.all, votes_of);
  }
  if (step.scorer == Scorer::kRow) now.score = sigmoid(logits[step.classes]);
  if (step.scorer == Scorer::kNetwork) {
    const float maximum = logit_of(logits, reductions.argmax);
    const float sum = 1.0f + reductions.rest, share = cast.most / cast.all;
    now.score = network_score(step, logits, maximum, sum, now, share, memory);
  }
  if (answers(step.accumulate)) {
    gather(step, policy, previous < 0, reductions, now, logits, votes);
  }
  return now;
}

// By one warp.
__device__ inline void copy(const float* from, int64_t classes, float* to) {
  for (int64_t c = lane(); c < classes; c += kWarpSize) to[c] = from[c];
}

// One sample at this exit, by one warp, from what the head gave. Whether it exits.
//
// Lane 0 alone reads and writes what is one number to a sample. The vote is written last, when all
// lanes have read what they want of the votes.
template <bool kExtended>
__device__ bool decide(
    const ExitStep& step, const Policy& policy, int64_t sample, float* logits) {
  const int64_t classes = step.classes;
  float* votes = kExtended && step.votes ? step.votes + sample * classes : nullptr;
  float* memory = kExtended && step.memory ? step.memory + sample * step.memories : nullptr;
  // What the head of the exit before left, which makes way for what this one gave: for the next exit
  // to read, or, with one class, to be compared with.
  float* left = step.logits + sample * classes;
  const float before = classes == 1 ? *left : 0.0f;
  if (kExtended && step.cascade) add_cascade(step, left, logits);
  if ((kExtended && step.cascade) || classes == 1) {
    __syncwarp();  // all lanes have read it
    copy(logits, classes, left);
  }
  int32_t vote = -1;
  Signals now;
  if constexpr (kExtended) {
    now = score(step, policy, sample, votes, memory, logits, vote);
  } else {
    now = signals(reduce(logits, classes), kNoPrediction, largest_entropy(classes));
  }

  bool exiting = false;
  if (lane() == 0) {
    now.agrees = now.prediction == step.prediction[sample];
    if (classes == 1) now.agrees &= close(policy, logits[0], before);
    const float next = next_score(policy, now, step.score[sample]);
    exiting = exits(policy, next);
    step.score[sample] = next;
    step.prediction[sample] = now.prediction;
    if (exiting) step.exit_layer[sample] = step.layer;
    if (memory) memory[step.exit - 1] = now.score;
  }
  exiting = __shfl_sync(kAllLanes, exiting, 0);
  if (exiting) {
    if (kExtended && step.accumulate == Accumulate::kVotes) {
      ballots(votes, classes, vote, now.prediction, logits);
    }
    if (kExtended && answers(step.accumulate)) {
      const int32_t answered = answer(step, votes, logits);
      if (lane() == 0) step.prediction[sample] = answered;
    }
    copy(logits, classes, left);
  }
  if (vote >= 0 && lane() == vote % kWarpSize) votes[vote] += 1.0f;
  return exiting;
}

// ---- the launch ---------------------------------------------------------------------------------

// Whether this block is the last to arrive. It then sees all that the other blocks wrote before.
__device__ inline bool is_last_block(int64_t* arrivals) {
  __shared__ bool is_last;
  __syncthreads();
  if (gridDim.x == 1) return true;
  if (threadIdx.x == 0) {
    // The barrier put the block's writes before this thread's, the fence puts them before its
    // arrival for all blocks; and, in the last, all arrivals before what it reads.
    __threadfence();
    const auto before = atomicAdd(reinterpret_cast<unsigned long long*>(arrivals), 1ull);
    __threadfence();
    is_last = before == gridDim.x - 1;
  }
  __syncthreads();
  return is_last;
}

// kExtended: the policy accumulates or scores, or the head has a cascade. All others have a kernel
// without that, which takes half as many registers.
template <class Element, bool kExtended>
__global__ void __launch_bounds__(kThreads, kExtended ? 2 : 4)
    exit_step(const ExitStep step, bool vectors) {
  __shared__ Running running;
  find_running(step, running);

  const bool has_pooler = step.pooler.weight != nullptr;
  float* pooled = step.scratch;
  float* logits = step.scratch + (has_pooler ? running.count * step.pooler.outputs : 0);
  const auto hidden_at = [&](int r) {
    return static_cast<const Element*>(step.hidden) + running.offset[r];
  };
  const auto pooled_at = [&](int r) -> const float* { return pooled + r * step.pooler.outputs; };
  const auto squashed = [](float value) { return tanhf(value); };
  const auto as_it_is = [](float value) { return value; };

  const int64_t number = static_cast<int64_t>(blockIdx.x) * kWarps + warp();
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kWarps;
  if (has_pooler) {
    apply<Element>(
        step.pooler, hidden_at, running.count, vectors, number, warps, pooled, squashed);
  } else {
    apply<Element>(step.head, hidden_at, running.count, vectors, number, warps, logits, as_it_is);
  }
  if (!is_last_block(step.control)) return;

  if (has_pooler) {
    apply<Element>(
        step.head, pooled_at, running.count, vectors, warp(), kWarps, logits, as_it_is);
    __syncthreads();
  }
  const float* row = step.table + 3 * (step.exit - 1);
  const Policy policy = {
      step.keep, step.gain, step.strict, step.last_exit, row[0], row[1], row[2]};
  bool stays = false;
  for (int r = warp(); r < running.count; r += kWarps) {
    stays |= !decide<kExtended>(step, policy, running.sample[r], logits + r * step.head.outputs);
  }
  const bool any_stays = __syncthreads_or(stays);
  if (threadIdx.x == 0) {
    if (any_stays) *step.running = true;
    step.control[0] = 0;
    const auto handle = static_cast<cudaGraphConditionalHandle>(step.control[1]);
    if (handle) cudaGraphSetConditional(handle, *step.running);
  }
}

// Calls `start` with the kernel that a step takes.
template <class Start>
void with_kernel(const ExitStep& step, Start start) {
  const bool extended = step.accumulate != Accumulate::kNone || step.scorer != Scorer::kNone ||
      step.cascade;
  switch (step.dtype) {
    case Dtype::kFloat32:
      return extended ? start(exit_step<float, true>) : start(exit_step<float, false>);
    case Dtype::kFloat16:
      return extended ? start(exit_step<__half, true>) : start(exit_step<__half, false>);
    case Dtype::kBFloat16:
      return extended ? start(exit_step<__nv_bfloat16, true>)
                      : start(exit_step<__nv_bfloat16, false>);
  }
}

}  // namespace eefast::cuda
