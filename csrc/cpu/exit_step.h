// The exit step over plain pointers: everything has been validated.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace eefast::cpu {

struct ExitStep {
  // Row r of the hidden states belongs to sample samples[r], or r if samples is null.
  const std::byte* hidden;
  int64_t row_bytes;  // from one row to the next
  int64_t rows;
  const int64_t* samples;
  // Sample n's head reads token positions[n] of its row, or the first if positions is null.
  const int64_t* positions;
  int64_t token_bytes;  // from one token to the next

  const Linear* pooler;  // [width, width], or null
  Linear head;           // [classes, width]; its dtype is that of the hidden states and the pooler

  Policy policy;
  int32_t layer;  // what a sample that leaves gets as its exit layer

  // The running state, by sample.
  float* score;
  int32_t* prediction;
  int32_t* exit_layer;
  float* logits;  // [samples, classes], or null
  bool* running;  // the flag of this exit
};

void run(const ExitStep& step);

}  // namespace eefast::cpu
