// What a batch without padding needs beside its blocks: groups, what exits read, and eviction.

#pragma once

#include <vector>

#include "block.h"

namespace eefast::cpu {

// The vector of a sample that its exits read.
class Readout {
 public:
  // The first token, or the mean of the tokens that the mask does not hide, zero if it hides all.
  // Tokens pass a norm first, if its weight and bias [width] are given.
  Readout(
      const Operands& operands, int64_t width, bool mean, const float* norm_weight,
      const float* norm_bias, float eps);

  // out[sample] of hidden [rows, width]
  void read(const std::vector<Span>& spans, const float* hidden, float* out) const;

 private:
  void read_mean(const Span& span, const float* hidden, float* out) const;
  const float* normed(const float* row, float* to) const;

  const Operands& operands_;
  const int64_t width_;
  const bool mean_;
  const float *norm_weight_, *norm_bias_;
  const float eps_;
};

// Samples that go through blocks together: few enough for what the blocks keep of their rows to
// stay in the caches. The spans count from the group's first row.
struct Group {
  int64_t first;
  Samples samples;
};

std::vector<Group> groups_of(const Samples& samples);

// The rows of the largest group that there can be.
int64_t largest_group(const Samples& samples);

// Moves the rows of the samples together that stay in the batch, if that takes less time than
// a block spends on the rows of those that have exited. Whether it did.
bool evict(Samples& samples, int64_t width, float* hidden);

}  // namespace eefast::cpu
