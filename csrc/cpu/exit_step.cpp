#include "exit_step.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <numeric>

#include "instruction_set.h"

namespace eefast::cpu {
namespace {

// Rows that are taken through the head together: enough to use the weights well once they are in
// the cache, few enough for their activations to stay there too.
constexpr int64_t kBatch = 32;

// The multiplications from which on a thread is worth waking.
constexpr int64_t kWorkPerThread = 1 << 18;

// With that many rows for each thread, threads need not share the layers of a row.
constexpr int64_t kRowsPerThread = 8;

// Memory of one thread, kept from call to call.
class Scratch {
 public:
  // Aligned to a cache line: a vector that straddles two costs twice.
  float* reserve(int64_t floats) {
    if (floats > size_) {
      memory_.reset();
      size_ = 0;
      memory_.reset(static_cast<float*>(::operator new(floats * sizeof(float), kAlignment)));
      size_ = floats;
    }
    return memory_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};

  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, kAlignment); }
  };

  std::unique_ptr<float, Free> memory_;
  int64_t size_ = 0;
};

class Exit {
 public:
  explicit Exit(const ExitStep& step)
      : step_(step),
        kernels_(active_kernels()),
        width_(padded(step.head.inputs)),
        classes_(padded(step.head.outputs)),
        features_(step.scorer ? padded(features(step.classes, step.exit)) : 0),
        largest_entropy_(largest_entropy(step.classes)),
        plain_(!step.votes && step.policy.scorer == Scorer::kNone) {}

  void run() {
    int64_t live = 0;
    for (int64_t row = 0; row < step_.rows; ++row) live += is_running(sample(row));
    if (live == 0) return;

    const int64_t work = live * step_.head.inputs *
        (step_.head.outputs + (step_.pooler ? step_.pooler->outputs : 0));
    const int64_t threads = work < 2 * kWorkPerThread ? 1 : torch::stable::get_num_threads();
    if (threads > 1 && live >= threads * kRowsPerThread) {
      torch::stable::parallel_for(
          0, step_.rows, kRowsPerThread, [&](int64_t first, int64_t last) { rows(first, last); });
    } else {
      share_layers_ = threads > 1;
      rows(0, step_.rows);
    }
    if (any_running_) *step_.running = true;
  }

 private:
  int64_t sample(int64_t row) const { return step_.samples ? step_.samples[row] : row; }

  bool is_running(int64_t sample) const { return step_.exit_layer[sample] == 0; }

  // Rows first..last, without those of exited samples.
  void rows(int64_t first, int64_t last) {
    int64_t batch[kBatch], size = 0;
    for (int64_t row = first; row < last; ++row) {
      if (!is_running(sample(row))) continue;
      batch[size++] = row;
      if (size == kBatch) {
        take(batch, size);
        size = 0;
      }
    }
    if (size > 0) take(batch, size);
  }

  void take(const int64_t* rows, int64_t count) {
    static thread_local Scratch scratch;
    float* activations = scratch.reserve(count * (2 * width_ + classes_) + features_);
    float* pooled = activations + count * width_;
    float* logits = pooled + count * width_;
    float* of_scorer = logits + count * classes_;

    const Linear& head = step_.head;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t offset = step_.offsets ? step_.offsets[rows[i]] : rows[i];
      const std::byte* row = step_.hidden + offset * step_.row_bytes;
      kernels_.load_row(head.dtype, row, head.inputs, activations + i * width_);
      std::fill(
          logits + i * classes_ + head.outputs, logits + (i + 1) * classes_,
          -std::numeric_limits<float>::infinity());
    }
    if (step_.pooler) {
      apply(kernels_.pooler, *step_.pooler, activations, count, pooled);
      activations = pooled;
    }
    apply(kernels_.logits, head, activations, count, logits);

    bool any_running = false;
    if (plain_) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t n = sample(rows[i]);
        any_running |= !decide(n, signals_of(n, logits + i * classes_), logits + i * classes_);
      }
    } else {
      for (int64_t i = 0; i < count; ++i) {
        any_running |= !meet(sample(rows[i]), logits + i * classes_, of_scorer);
      }
    }
    if (any_running) any_running_.store(true, std::memory_order_relaxed);
  }

  template <class Layer>
  void apply(Layer* kernel, const Linear& layer, const float* in, int64_t rows, float* out) const {
    if (!share_layers_) return kernel(layer, in, rows, 0, layer.outputs, out);
    const int64_t work_per_tile = kPadding * layer.inputs * rows;
    const int64_t tiles_per_thread = kWorkPerThread / std::max<int64_t>(work_per_tile, 1);
    torch::stable::parallel_for(
        0, padded(layer.outputs) / kPadding, std::max<int64_t>(tiles_per_thread, 1),
        [&](int64_t first, int64_t last) {
          kernel(
              layer, in, rows, first * kPadding, std::min(last * kPadding, layer.outputs), out);
        });
  }

  Signals signals_of(int64_t sample, const float* logits) const {
    return signals(
        kernels_.reduce(logits, step_.classes), step_.prediction[sample], largest_entropy_);
  }

  // One sample at an exit of a policy that accumulates or has a scorer. Whether it exits; `row`
  // holds what the head gave, and then the logits that are written.
  bool meet(int64_t sample, float* row, float* of_scorer) const {
    const int64_t classes = step_.classes;
    float row_output = 0.0f;
    if (step_.policy.scorer == Scorer::kRow) {
      row_output = row[classes];
      row[classes] = -std::numeric_limits<float>::infinity();  // it pads the classes now
    }
    float* votes = step_.votes ? step_.votes + sample * classes : nullptr;
    if (step_.policy.accumulate == Accumulate::kLogProbabilities) add_to_ensemble(votes, row);

    const Reductions reductions = kernels_.reduce(row, classes);
    Signals now = signals(reductions, step_.prediction[sample], largest_entropy_);
    const bool voting = step_.policy.accumulate == Accumulate::kVotes;
    if (voting || step_.scorer) {
      votes[now.prediction] += 1.0f;
      if (voting) {
        now = elect(now, step_.prediction[sample], sum(votes), [&](int32_t c) { return votes[c]; });
      }
    }
    if (step_.policy.scorer != Scorer::kNone) {
      float* memory = step_.memory ? step_.memory + sample * step_.memory_width : nullptr;
      now.score = step_.scorer ? network(reductions, now, row, votes, memory, of_scorer)
                               : sigmoid(row_output);
      if (memory) memory[step_.exit - 1] = now.score;
    }
    if (!voting) return decide(sample, now, row);
    std::memcpy(row, votes, classes * sizeof(float));
    row[now.prediction] += kMajorityMargin;
    return decide(sample, now, row);
  }

  // The weighted sum of logits takes a row's; the row becomes the ensemble's.
  void add_to_ensemble(float* sums, float* row) const {
    // By a tau of 0 nothing is multiplied: 0 * inf is NaN.
    if (step_.policy.tau != 0.0f) {
      for (int64_t c = 0; c < step_.classes; ++c) sums[c] += step_.policy.tau * row[c];
    }
    if (step_.total_tau != 0.0f) {
      for (int64_t c = 0; c < step_.classes; ++c) row[c] = sums[c] / step_.total_tau;
    }
  }

  // Of counts, which a float32 holds exactly.
  float sum(const float* votes) const {
    return std::accumulate(votes, votes + step_.classes, 0.0f);
  }

  float network(
      const Reductions& reductions, const Signals& now, const float* logits, const float* votes,
      const float* memory, float* of_scorer) const {
    const int64_t classes = step_.classes, inputs = features(classes, step_.exit);
    kernels_.softmax(logits, classes, reductions, of_scorer);
    float* rest = of_scorer + classes;
    *rest++ = now.confidence;
    *rest++ = 1.0f - now.entropy;
    *rest++ = *std::max_element(votes, votes + classes) / sum(votes);
    std::copy(memory, memory + (step_.exit - 1), rest);

    float total = 0.0f;
    for (int64_t h = 0; h < step_.units; ++h) {
      const float* unit = step_.scorer + h * (inputs + 2);
      total += leaky_relu(kernels_.dot(unit, of_scorer, inputs) + unit[inputs]) * unit[inputs + 1];
    }
    return sigmoid(total);
  }

  // Whether the sample exits, with these logits.
  bool decide(int64_t sample, Signals now, const float* logits) const {
    float* written = step_.logits + sample * step_.classes;
    if (step_.classes == 1) now.agrees &= close(step_.policy, *logits, *written);
    const float score = next_score(step_.policy, now, step_.score[sample]);
    const bool exiting = exits(step_.policy, score);
    step_.score[sample] = score;
    step_.prediction[sample] = now.prediction;
    if (exiting) step_.exit_layer[sample] = step_.layer;
    // The next exit compares its output with this one's.
    if (exiting || step_.classes == 1) {
      std::memcpy(written, logits, step_.classes * sizeof(float));
    }
    return exiting;
  }

  const ExitStep& step_;
  const Kernels& kernels_;
  const int64_t width_;    // floats from one row of activations to the next
  const int64_t classes_;  // floats from one row of the head's outputs to the next
  const int64_t features_;  // floats for the features of a network
  const float largest_entropy_;
  const bool plain_;  // neither accumulates nor has a scorer
  bool share_layers_ = false;  // else each thread takes its own rows
  std::atomic<bool> any_running_{false};
};

}  // namespace

void run(const ExitStep& step) { Exit(step).run(); }

}  // namespace eefast::cpu
