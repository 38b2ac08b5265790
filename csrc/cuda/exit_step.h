// The exit step of a few rows over plain device pointers: everything has been validated.
//
// Free of torch, and of CUDA except for the stream.

#pragma once

#include <algorithm>
#include <cstdint>

#include "../policy.h"

struct CUstream_st;

namespace eefast::cuda {

enum class Dtype { kFloat32, kFloat16, kBFloat16 };

constexpr int64_t size_of(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }

inline constexpr int kWarpSize = 32;
inline constexpr int kWarps = 8;  // of a block
inline constexpr int kThreads = kWarps * kWarpSize;
inline constexpr int kMaxRows = kWarpSize;  // one warp looks at all rows at once
inline constexpr int kTile = 8;             // rows that a warp takes through a layer together
inline constexpr int64_t kMaxBlocks = 512;  // a few for each multiprocessor; they loop beyond that
inline constexpr int64_t kVectorBytes = 16;

// A linear layer's weights, [outputs, inputs] and [outputs], contiguous.
struct Linear {
  const void* weight;
  const void* bias;  // or null
  int64_t inputs;
  int64_t outputs;
};

struct ExitStep {
  Dtype dtype;  // of the hidden states and of the weights
  // Row r reads vector offsets[r] of the hidden states, or vector r if offsets is null. It belongs
  // to sample samples[r], or r if samples is null.
  const void* hidden;
  int64_t row_stride;  // in elements
  int32_t rows;
  const int64_t* offsets;
  const int64_t* samples;

  Linear pooler;  // [width, width]; a null weight for none
  Linear head;    // [classes, width], and one output more where a row of the head scores
  int64_t classes;
  const float* cascade;  // [classes, classes], or null

  Keep keep;
  Gain gain;
  Accumulate accumulate;
  Scorer scorer;
  bool strict;
  bool last_exit;
  const float* network;  // of the scorer, [units, features + 2]; or null
  int64_t units;
  const float* table;  // weight, threshold, tau of every exit
  int64_t exit;        // 1-based
  int32_t layer;       // written to exit_layer of a sample that exits

  // The running state, by sample.
  float* score;
  int32_t* prediction;
  int32_t* exit_layer;
  float* logits;     // [samples, classes]; while a sample runs, with one class or a cascade, what
                     // the head of the exit before gave
  bool* running;     // the flag of this exit
  float* votes;      // [samples, classes], or null
  float* memory;     // [samples, memories], the score of every exit; or null
  int64_t memories;
  int64_t* control;  // finished blocks, and the handle of a conditional node or 0

  float* scratch;  // scratch_floats(step) of them, aligned to kVectorBytes
};

// The layer that all blocks share; the block that finishes last computes the rest.
inline const Linear& first_layer(const ExitStep& step) {
  return step.pooler.weight ? step.pooler : step.head;
}

inline int64_t blocks(const ExitStep& step) {
  const int64_t tiles = (step.rows + kTile - 1) / kTile;
  const int64_t warps = first_layer(step).outputs * tiles;
  return std::clamp<int64_t>((warps + kWarps - 1) / kWarps, 1, kMaxBlocks);
}

// For every row what the pooler gives, if there is one, and then for every row what the head gives.
inline int64_t scratch_floats(const ExitStep& step) {
  return step.rows * (step.head.outputs + (step.pooler.weight ? step.pooler.outputs : 0));
}

// Whether every row of hidden states and of weights can be read a vector at a time.
inline bool fits_vectors(const ExitStep& step) {
  const auto fits = [&](int64_t elements) {
    return elements * size_of(step.dtype) % kVectorBytes == 0;
  };
  const auto aligned = [](const void* data) {
    return reinterpret_cast<uintptr_t>(data) % kVectorBytes == 0;
  };
  return fits(step.head.inputs) && fits(step.row_stride) &&
      aligned(step.hidden) && aligned(step.head.weight) && aligned(step.pooler.weight);
}

// Throws std::runtime_error if the launch fails.
void launch(const ExitStep& step, CUstream_st* stream);

// Sets a cudaGraphConditionalHandle to a flag on the device. Throws as `launch`.
void set_conditional(const bool* flag, uint64_t handle, CUstream_st* stream);

// Whether a kernel was built for it and the driver takes that kernel.
bool runs_on_current_device();

}  // namespace eefast::cuda
