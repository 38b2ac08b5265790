// The exit step over plain pointers: everything has been validated.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace eefast::cpu {

struct ExitStep {
  // Row r of the call belongs to sample samples[r], or r if samples is null.
  const std::byte* hidden;
  int64_t row_bytes;  // from one row to the next
  int64_t rows;
  const int64_t* samples;
  // Row r of the call is row offsets[r] of the hidden states, or r if offsets is null.
  const int64_t* offsets;

  const Linear* pooler;  // [width, width], or null
  Linear head;           // [classes, width], with a row more for a scorer that is one; its dtype is
                         // that of the hidden states and the pooler
  int64_t classes;
  const float* cascade;  // [classes, classes], or null
  const float* scorer;   // [units, features + 2] of a network, or null
  int64_t units;

  Policy policy;
  int64_t exit;     // 1-based
  float total_tau;  // of the exits up to this one, where log-probabilities are accumulated
  int32_t layer;  // written to exit_layer of a sample that exits

  // The running state, by sample.
  float* score;
  int32_t* prediction;
  int32_t* exit_layer;
  float* logits;  // [samples, classes]; while a sample runs, with one class or a cascade, what the
                  // head of the exit before gave
  bool* running;  // the flag of this exit
  float* votes;   // [samples, classes], or null
  float* memory;  // [samples, memory_width], or null
  int64_t memory_width;
};

void run(const ExitStep& step);

}  // namespace eefast::cpu
