#include "exit_step.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "instruction_set.h"

namespace eefast::cpu {
namespace {

// Rows that are taken through the head together: enough to use the weights well once they are in
// the cache, few enough for their activations to stay there too.
constexpr int64_t kBatch = 32;

// Multiplications that are worth waking a thread for.
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
        largest_entropy_(largest_entropy(step.head.outputs)) {}

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

  // Rows first..last, skipping those of samples that have left.
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
    float* activations = scratch.reserve(count * (2 * width_ + classes_));
    float* pooled = activations + count * width_;
    float* logits = pooled + count * width_;

    const Linear& head = step_.head;
    for (int64_t i = 0; i < count; ++i) {
      const std::byte* row = step_.hidden + rows[i] * step_.row_bytes;
      if (step_.positions) row += step_.positions[sample(rows[i])] * step_.token_bytes;
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
    for (int64_t i = 0; i < count; ++i) {
      any_running |= !decide(sample(rows[i]), logits + i * classes_);
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

  // Whether the sample leaves.
  bool decide(int64_t sample, const float* logits) const {
    const int64_t classes = step_.head.outputs;
    const Signals now = signals(
        kernels_.reduce(logits, classes), step_.prediction[sample], largest_entropy_);
    const float score = next_score(step_.policy, now, step_.score[sample]);
    const bool leaving = leaves(step_.policy, score);
    step_.score[sample] = score;
    step_.prediction[sample] = now.prediction;
    if (leaving) {
      step_.exit_layer[sample] = step_.layer;
      if (step_.logits) {
        std::memcpy(step_.logits + sample * classes, logits, classes * sizeof(float));
      }
    }
    return leaving;
  }

  const ExitStep& step_;
  const Kernels& kernels_;
  const int64_t width_;    // floats from one row of activations to the next
  const int64_t classes_;  // floats from one row of logits to the next
  const float largest_entropy_;
  bool share_layers_ = false;  // else each thread takes rows of its own
  std::atomic<bool> any_running_{false};
};

}  // namespace

void run(const ExitStep& step) { Exit(step).run(); }

}  // namespace eefast::cpu
