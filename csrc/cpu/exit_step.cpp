#include "exit_step.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cmath>
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
        spare_(
            step.scorer ? padded(features(step.classes, step.exit))
            : answers(step.policy.accumulate) ? padded(step.classes) : 0),
        largest_entropy_(largest_entropy(step.classes)),
        plain_(
            step.policy.accumulate == Accumulate::kNone && step.policy.scorer == Scorer::kNone) {}

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
    float* activations = scratch.reserve(count * (2 * width_ + classes_) + spare_);
    float* pooled = activations + count * width_;
    float* logits = pooled + count * width_;
    float* spare = logits + count * classes_;

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
        float* z = logits + i * classes_;
        const float before = hand_on(n, z);
        const bool exiting = decide(n, signals_of(n, z), *z, before);
        if (exiting) leave(n, z);
        any_running |= !exiting;
      }
    } else {
      for (int64_t i = 0; i < count; ++i) {
        any_running |= !meet(sample(rows[i]), logits + i * classes_, spare);
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

  // The head's row gains what it reads of the exit before, and is left for the next exit: to read,
  // or, with one class, to be compared with. The output of the exit before, where there is one class.
  float hand_on(int64_t sample, float* row) const {
    const int64_t classes = step_.classes;
    if (!step_.cascade && classes > 1) return 0.0f;
    float* left = step_.logits + sample * classes;
    const float before = *left;
    if (step_.cascade) {
      for (int64_t c = 0; c < classes; ++c) {
        row[c] += kernels_.dot(step_.cascade + c * classes, left, classes);
      }
    }
    std::memcpy(left, row, classes * sizeof(float));
    return before;
  }

  // One sample at an exit of a policy that accumulates or has a scorer. Whether it exits; `row`
  // holds what the head gave, and then the logits that are written. `spare` is memory.
  bool meet(int64_t sample, float* row, float* spare) const {
    const int64_t classes = step_.classes;
    const Accumulate accumulate = step_.policy.accumulate;
    const float before = hand_on(sample, row);
    float row_output = 0.0f;
    if (step_.policy.scorer == Scorer::kRow) {
      row_output = row[classes];
      row[classes] = -std::numeric_limits<float>::infinity();  // it pads the classes now
    }
    float* votes = step_.votes ? step_.votes + sample * classes : nullptr;
    if (accumulate == Accumulate::kLogProbabilities) add_to_ensemble(votes, row);
    if (accumulate == Accumulate::kTemperature) {
      for (int64_t c = 0; c < classes; ++c) row[c] *= step_.policy.tau;
    }

    const Reductions reductions = kernels_.reduce(row, classes);
    Signals now = signals(reductions, step_.prediction[sample], largest_entropy_);
    const bool voting = accumulate == Accumulate::kVotes;
    if (counts_votes(accumulate, step_.policy.scorer)) {
      votes[now.prediction] += 1.0f;
      if (voting) {
        now = elect(now, step_.prediction[sample], sum(votes), [&](int32_t c) { return votes[c]; });
      }
    }
    if (step_.policy.scorer != Scorer::kNone) {
      float* memory = step_.memory ? step_.memory + sample * step_.memory_width : nullptr;
      now.score = step_.scorer ? network(reductions, now, row, votes, memory, spare)
                               : sigmoid(row_output);
      if (memory) memory[step_.exit - 1] = now.score;
    }
    const bool answering = answers(accumulate);
    if (answering) gather(step_.prediction[sample] < 0, now, reductions, row, votes, spare);
    if (!decide(sample, now, *row, before)) return false;
    if (voting) {
      std::memcpy(row, votes, classes * sizeof(float));
      row[now.prediction] += kMajorityMargin;
    } else if (answering) {
      answer(votes, row);
      step_.prediction[sample] = kernels_.reduce(row, classes).argmax;
    }
    leave(sample, row);
    return true;
  }

  // The probabilities so far, or of the streak, take this exit's; or its logits take the place of
  // less confident ones.
  void gather(
      bool first, const Signals& now, const Reductions& reductions, const float* row,
      float* gathered, float* spare) const {
    const int64_t classes = step_.classes;
    if (step_.policy.accumulate == Accumulate::kMostConfident) {
      if (first || more_confident(now.confidence, confidence_of(gathered, spare))) {
        std::memcpy(gathered, row, classes * sizeof(float));
      }
    } else if (step_.policy.accumulate == Accumulate::kMean || keeps(step_.policy, now)) {
      kernels_.softmax(row, classes, reductions, spare);
      for (int64_t c = 0; c < classes; ++c) gathered[c] += spare[c];
    } else {
      std::fill(gathered, gathered + classes, 0.0f);
    }
  }

  // A row that is not padded is copied for it.
  float confidence_of(const float* logits, float* spare) const {
    std::memcpy(spare, logits, step_.classes * sizeof(float));
    std::fill(
        spare + step_.classes, spare + padded(step_.classes),
        -std::numeric_limits<float>::infinity());
    return confidence(kernels_.reduce(spare, step_.classes));
  }

  // The row becomes ln of the mean of what was gathered, or the most confident exit's at the last;
  // else it stays as it is.
  void answer(const float* gathered, float* row) const {
    const int64_t classes = step_.classes;
    if (step_.policy.accumulate == Accumulate::kMostConfident) {
      if (step_.policy.last_exit) std::memcpy(row, gathered, classes * sizeof(float));
      return;
    }
    const float total = sum(gathered);
    if (total == 0.0f) return;
    for (int64_t c = 0; c < classes; ++c) row[c] = std::log(gathered[c] / total);
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

  float sum(const float* votes) const {
    return std::accumulate(votes, votes + step_.classes, 0.0f);
  }

  float network(
      const Reductions& reductions, const Signals& now, const float* logits, const float* votes,
      const float* memory, float* spare) const {
    const int64_t classes = step_.classes, inputs = features(classes, step_.exit);
    kernels_.softmax(logits, classes, reductions, spare);
    float* rest = spare + classes;
    *rest++ = now.confidence;
    *rest++ = 1.0f - now.entropy;
    *rest++ = *std::max_element(votes, votes + classes) / sum(votes);
    std::copy(memory, memory + (step_.exit - 1), rest);

    float total = 0.0f;
    for (int64_t h = 0; h < step_.units; ++h) {
      const float* unit = step_.scorer + h * (inputs + 2);
      total += leaky_relu(kernels_.dot(unit, spare, inputs) + unit[inputs]) * unit[inputs + 1];
    }
    return sigmoid(total);
  }

  // Whether the sample exits. `output` is this exit's own, and `before` that of the exit before,
  // where there is one class.
  bool decide(int64_t sample, Signals now, float output, float before) const {
    if (step_.classes == 1) now.agrees &= close(step_.policy, output, before);
    const float score = next_score(step_.policy, now, step_.score[sample]);
    step_.score[sample] = score;
    step_.prediction[sample] = now.prediction;
    return exits(step_.policy, score);
  }

  // The sample exits with these logits.
  void leave(int64_t sample, const float* logits) const {
    step_.exit_layer[sample] = step_.layer;
    std::memcpy(step_.logits + sample * step_.classes, logits, step_.classes * sizeof(float));
  }

  const ExitStep& step_;
  const Kernels& kernels_;
  const int64_t width_;    // floats from one row of activations to the next
  const int64_t classes_;  // floats from one row of the head's outputs to the next
  const int64_t spare_;    // floats for the features of a network, or for one row of classes
  const float largest_entropy_;
  const bool plain_;  // neither accumulates nor has a scorer
  bool share_layers_ = false;  // else each thread takes its own rows
  std::atomic<bool> any_running_{false};
};

}  // namespace

void run(const ExitStep& step) { Exit(step).run(); }

}  // namespace eefast::cpu
