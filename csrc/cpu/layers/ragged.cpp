#include "ragged.h"

#include <algorithm>
#include <cstring>

#include "../instruction_set.h"

namespace eefast::cpu {
namespace {

// Measured with int8 on two cores with AMX, 32 tokens a sample: at widths 384 and 768 a block takes a
// fifth to a quarter less time per row with 256 rows than with 4096, whose intermediate rows are
// written to memory and read back.
constexpr int64_t kRowsAtOnce = 256;

// How many rows one thread copies in the time in which two threads compute a block of one. Measured
// on two cores with AMX at widths 384 and 768: in float32 150 to 570, in int8 45 to 130. Where products
// are slower beside copies, as without AMX, the true number is larger, and some evictions come late.
constexpr int64_t kRowsCopiedPerRow = 32;

}  // namespace

Readout::Readout(
    const Operands& operands, int64_t width, bool mean, const float* norm_weight,
    const float* norm_bias, float eps)
    : operands_(operands), width_(width), mean_(mean), norm_weight_(norm_weight),
      norm_bias_(norm_bias), eps_(eps) {}

void Readout::read(const std::vector<Span>& spans, const float* hidden, float* out) const {
  const auto count = static_cast<int64_t>(spans.size());
  if (!mean_) {
    for (const Span& span : spans) {
      float* to = out + span.sample * width_;
      const float* row = normed(hidden + span.first * width_, to);
      if (row != to) std::copy_n(row, width_, to);
    }
    return;
  }
  Step step;
  on_threads(threads_for(count * operands_.tokens * width_), [&](int64_t thread) {
    step.run(thread, count, [&](int64_t item) { read_mean(spans[item], hidden, out); });
  });
}

void Readout::read_mean(const Span& span, const float* hidden, float* out) const {
  const float* mask = operands_.mask ? operands_.mask + span.sample * operands_.mask_stride : nullptr;
  std::vector<float> memory(norm_weight_ ? width_ : 0);
  float* mean = out + span.sample * width_;
  std::fill_n(mean, width_, 0.0f);
  int64_t shown = 0;
  for (int64_t t = 0; t < span.tokens; ++t) {
    if (mask && mask[t] != 0.0f) continue;
    const float* row = normed(hidden + (span.first + t) * width_, memory.data());
    for (int64_t i = 0; i < width_; ++i) mean[i] += row[i];
    ++shown;
  }
  const float part = 1.0f / static_cast<float>(std::max<int64_t>(shown, 1));
  for (int64_t i = 0; i < width_; ++i) mean[i] *= part;
}

const float* Readout::normed(const float* row, float* to) const {
  if (!norm_weight_) return row;
  active_layer_kernels().normalise(row, width_, norm_weight_, norm_bias_, eps_, to);
  return to;
}

std::vector<Group> groups_of(const Samples& samples) {
  std::vector<Group> groups;
  for (const Span& span : samples.spans) {
    const int64_t end = span.first + span.tokens;
    if (groups.empty() || end - groups.back().first > kRowsAtOnce) groups.push_back({span.first, {}});
    Group& group = groups.back();
    group.samples.spans.push_back({span.sample, span.first - group.first, span.tokens});
    group.samples.rows = end - group.first;
  }
  return groups;
}

int64_t largest_group(const Samples& samples) {
  int64_t longest = 0;
  for (const Span& span : samples.spans) longest = std::max(longest, span.tokens);
  return std::min(samples.rows, std::max(kRowsAtOnce, longest));
}

bool evict(Samples& samples, int64_t width, float* hidden) {
  int64_t stay = 0, moved = 0;
  for (const Span& span : samples.spans) {
    if (span.first != stay) moved += span.tokens;
    stay += span.tokens;
  }
  if (moved >= (samples.rows - stay) * kRowsCopiedPerRow) return false;
  int64_t end = 0;
  for (Span& span : samples.spans) {
    if (span.first != end) {
      std::memmove(hidden + end * width, hidden + span.first * width, 4 * span.tokens * width);
      span.first = end;
    }
    end += span.tokens;
  }
  samples.rows = stay;
  return true;
}

}  // namespace eefast::cpu
