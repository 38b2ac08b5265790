// The kernel of the exit step: up to kMaxRows rows, one launch.
//
// First all blocks share the largest matrix: the pooler, or the head if there is none. What they
// find goes to the scratch memory, and the last of them to be done does the rest alone: the head
// behind a pooler, the softmax, the policy and the state. Nobody waits for anybody, so that nothing
// depends on how many blocks run at once.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstring>

#include "exit_step.h"

namespace eefast::cuda {

inline constexpr unsigned kAllLanes = 0xFFFFFFFF;

__device__ inline int lane() { return threadIdx.x % kWarpSize; }
__device__ inline int warp() { return threadIdx.x / kWarpSize; }

// ---- rows ---------------------------------------------------------------------------------------

// The rows whose samples have not left.
struct Running {
  int count;
  int64_t sample[kMaxRows];
  int64_t offset[kMaxRows];  // of its vector in the hidden states
};

// All blocks find the same rows: only the last to be done writes exit_layer, and by then every
// block has been here.
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

__device__ inline float sum_of_lanes(float value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// Products of one row of weights with up to kTile rows, of which this lane adds up its share.
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

// Of one row of logits, by one warp.
__device__ inline Reductions reduce(const float* logits, int64_t classes) {
  const auto last = static_cast<int32_t>(classes);
  Logit best = {-INFINITY, last};
  for (int32_t c = lane(); c < last; c += kWarpSize) best = larger(best, {logits[c], c});
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const float value = __shfl_xor_sync(kAllLanes, best.value, distance);
    best = larger(best, {value, __shfl_xor_sync(kAllLanes, best.index, distance)});
  }
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

// One sample at this exit, by one warp. Whether it leaves.
__device__ inline bool decide(
    const ExitStep& step, const Policy& policy, int64_t sample, const float* logits) {
  const int64_t classes = step.head.outputs;
  const Reductions reductions = reduce(logits, classes);
  bool leaving = false;
  if (lane() == 0) {
    const Signals now = signals(reductions, step.prediction[sample], largest_entropy(classes));
    const float score = next_score(policy, now, step.score[sample]);
    leaving = leaves(policy, score);
    step.score[sample] = score;
    step.prediction[sample] = now.prediction;
    if (leaving) step.exit_layer[sample] = step.layer;
  }
  leaving = __shfl_sync(kAllLanes, leaving, 0);
  if (leaving) {
    for (int64_t c = lane(); c < classes; c += kWarpSize) {
      step.logits[sample * classes + c] = logits[c];
    }
  }
  return leaving;
}

// ---- the launch ---------------------------------------------------------------------------------

// Whether this block is the last to be here. To it, what all blocks wrote before is visible.
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

template <class Element>
__global__ void __launch_bounds__(kThreads, 4) exit_step(const ExitStep step, bool vectors) {
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
  const Policy policy = {step.keep,
                         step.gain,
                         step.strict,
                         step.last_exit,
                         step.row_of_table[0],
                         step.row_of_table[1],
                         step.row_of_table[2]};
  bool stays = false;
  for (int r = warp(); r < running.count; r += kWarps) {
    stays |= !decide(step, policy, running.sample[r], logits + r * step.head.outputs);
  }
  const bool any_stays = __syncthreads_or(stays);
  if (threadIdx.x == 0) {
    if (any_stays) *step.running = true;
    step.control[0] = 0;
    const auto handle = static_cast<cudaGraphConditionalHandle>(step.control[1]);
    if (handle) cudaGraphSetConditional(handle, *step.running);
  }
}

}  // namespace eefast::cuda
