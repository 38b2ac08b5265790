#include <pthread.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>

#include "../instruction_set.h"
#include "packed.h"

namespace eefast::cpu {
namespace {

// Rows that meet a panel together: they stay in the second-level cache.
constexpr int64_t kChunk = 128;

// The multiplications from which on a second thread is worth waking.
constexpr int64_t kWorkPerThread = 1 << 18;

// libgomp's team does not survive a fork: a child that asks for it waits for ever.
std::atomic<bool> forked{false};
const int at_fork = pthread_atfork(nullptr, nullptr, [] { forked = true; });

int64_t threads_for(int64_t work) {
  if (forked || work < 2 * kWorkPerThread) return 1;
  return torch::stable::get_num_threads();
}

struct Free {
  void operator()(std::byte* memory) const { ::operator delete(memory, std::align_val_t{64}); }
};
using Memory = std::unique_ptr<std::byte, Free>;

Memory allocate(int64_t bytes) {
  return Memory(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{64})));
}

template <class Body>
void in_parallel(int64_t threads, int64_t count, const Body& body) {
  if (threads > 1) {
    torch::stable::parallel_for(0, count, (count + threads - 1) / threads, body);
  } else {
    body(0, count);
  }
}

// Rows in the layer's dtype.
struct Rows {
  Memory memory;
  const std::byte* data;
  int64_t bytes;  // from one row to the next
  std::unique_ptr<float[]> scales;
  std::unique_ptr<int32_t[]> zeros;
};

Rows convert(const PackedLinear& layer, const float* x, int64_t rows, int64_t threads) {
  const LayerKernels& kernels = active_layer_kernels();
  const int64_t width = layer.inputs, padded = layer.groups() * layer.inputs_per_group();
  Rows to{nullptr, reinterpret_cast<const std::byte*>(x), 4 * width, nullptr, nullptr};
  // Rows at a multiple of 4096 bytes would share one set of the first-level cache.
  if (layer.packing == Packing::kFloat32 && to.bytes % 4096 != 0) return to;
  to.bytes = (padded * layer.element_bytes() + 63) / 64 * 64 + 64;
  to.memory = allocate(rows * to.bytes);
  to.data = to.memory.get();
  if (layer.packing == Packing::kInt8) {
    to.scales.reset(new float[rows]);
    to.zeros.reset(new int32_t[rows]);
  }
  in_parallel(threads, rows, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      std::byte* row = to.memory.get() + r * to.bytes;
      if (layer.packing == Packing::kFloat32) {
        std::copy_n(x + r * width, width, reinterpret_cast<float*>(row));
      } else if (layer.packing == Packing::kBFloat16) {
        kernels.to_bfloat16(x + r * width, width, padded, reinterpret_cast<uint16_t*>(row));
      } else {
        kernels.quantise(
            x + r * width, width, padded, reinterpret_cast<uint8_t*>(row), &to.scales[r],
            &to.zeros[r]);
      }
    }
  });
  return to;
}

// Items 0..count-1, claimed from both ends.
class Items {
 public:
  explicit Items(int64_t count) : count_(count) {}

  // The next item from the low or the high end, or -1.
  int64_t claim(bool low) {
    const uint64_t before = claimed_.fetch_add(low ? 1 : uint64_t{1} << 32);
    const int64_t lows = before & 0xffffffffu, highs = before >> 32;
    if (lows + highs >= count_) return -1;
    return low ? lows : count_ - 1 - highs;
  }

 private:
  const int64_t count_;
  std::atomic<uint64_t> claimed_{0};
};

}  // namespace

void multiply(
    const PackedLinear& layer, const float* x, int64_t rows, Activation activation,
    const float* residual, float* out) {
  const int64_t panels = layer.panels(), outputs = layer.outputs;
  const int64_t count = panels * ((rows + kChunk - 1) / kChunk);
  if (count == 0) return;
  const int64_t threads = std::min(count, threads_for(rows * layer.inputs * outputs));
  const Rows from = convert(layer, x, rows, threads);
  const auto kernel = active_layer_kernels().multiply[static_cast<int>(layer.packing)];
  const bool int8 = layer.packing == Packing::kInt8;
  Items items(count);
  const auto work = [&](int64_t thread, int64_t) {
    const bool low = thread % 2 == 0;
    for (int64_t item; (item = items.claim(low)) >= 0;) {
      const int64_t index = item % panels, first = item / panels * kChunk;
      const int64_t column = index * kPanel, at = first * outputs + column;
      const int64_t next = low ? index + 1 : index - 1;
      kernel({
          from.data + first * from.bytes,
          from.bytes,
          std::min(kChunk, rows - first),
          layer.panel(index),
          layer.groups(),
          next >= 0 && next < panels ? layer.panel(next) : nullptr,
          layer.bias() + column,
          activation,
          residual ? residual + at : nullptr,
          out + at,
          outputs,
          std::min(kPanel, outputs - column),
          int8 ? layer.scales() + column : nullptr,
          int8 ? layer.column_sums() + column : nullptr,
          int8 ? &from.scales[first] : nullptr,
          int8 ? &from.zeros[first] : nullptr,
      });
    }
  };
  in_parallel(threads, threads, work);
}

}  // namespace eefast::cpu
