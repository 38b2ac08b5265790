#include <algorithm>
#include <utility>

#include "../instruction_set.h"
#include "packed.h"

namespace eefast::cpu {
namespace {

// Rows that meet a panel together: they stay in the second-level cache.
constexpr int64_t kChunk = 128;

// What a thread reads after panel `index` of a layer: the next one, or the next layer's first.
std::pair<const std::byte*, int64_t> after(
    const PackedLinear& layer, int64_t index, bool low, const PackedLinear* next) {
  const int64_t neighbour = low ? index + 1 : index - 1;
  if (neighbour >= 0 && neighbour < layer.panels()) {
    return {layer.panel(neighbour), layer.panel_bytes()};
  }
  if (!next) return {nullptr, 0};
  return {next->panel(low ? 0 : next->panels() - 1), next->panel_bytes()};
}

}  // namespace

int64_t row_bytes(const PackedLinear& layer) {
  const int64_t padded = layer.groups() * layer.inputs_per_group();
  const int64_t bytes = (padded * layer.element_bytes() + 63) / 64 * 64 + 64;
  return bytes % 4096 == 0 ? bytes + 64 : bytes;
}

RowBuffer take_rows(Arena& arena, const PackedLinear& layer, int64_t rows) {
  const int64_t bytes = row_bytes(layer);
  const bool int8 = layer.packing == Packing::kInt8;
  return {
      arena.take<std::byte>(rows * bytes), bytes, arena.take<float>(int8 ? rows : 0),
      arena.take<int32_t>(int8 ? rows : 0)};
}

void convert(const PackedLinear& layer, const float* row, const RowBuffer& to, int64_t index) {
  const LayerKernels& kernels = active_layer_kernels();
  const int64_t width = layer.inputs, padded = layer.groups() * layer.inputs_per_group();
  std::byte* out = to.data + index * to.bytes;
  switch (layer.packing) {
    case Packing::kFloat32:
      std::copy_n(row, width, reinterpret_cast<float*>(out));
      break;
    case Packing::kBFloat16:
      kernels.to_bfloat16(row, width, padded, reinterpret_cast<uint16_t*>(out));
      break;
    case Packing::kInt8:
      kernels.quantise(
          row, width, padded, reinterpret_cast<uint8_t*>(out), to.scales + index, to.zeros + index);
      break;
  }
}

void multiply(const Product& product, Step& step, int64_t thread) {
  const PackedLinear& layer = product.layer;
  const Rows& rows = product.rows;
  const int64_t panels = layer.panels(), stride = product.out_stride;
  const auto kernel = active_layer_kernels().multiply[static_cast<int>(layer.packing)];
  const bool low = thread % 2 == 0, int8 = layer.packing == Packing::kInt8;
  step.run(thread, panels * ((product.count + kChunk - 1) / kChunk), [&](int64_t item) {
    const int64_t index = item % panels, first = item / panels * kChunk;
    const int64_t column = index * kPanel, at = first * stride + column;
    const auto [next, next_bytes] = after(layer, index, low, product.next);
    kernel({
        rows.data + first * rows.bytes,
        rows.bytes,
        std::min(kChunk, product.count - first),
        layer.panel(index),
        layer.groups(),
        next,
        next_bytes,
        layer.bias() + column,
        product.activation,
        product.residual ? product.residual + at : nullptr,
        product.out + at,
        stride,
        std::min(kPanel, layer.outputs - column),
        int8 ? layer.scales() + column : nullptr,
        int8 ? layer.column_sums() + column : nullptr,
        int8 ? rows.scales + first : nullptr,
        int8 ? rows.zeros + first : nullptr,
    });
  });
}

void multiply_alone(
    const PackedLinear& layer, const float* x, int64_t rows, Activation activation,
    const float* residual, float* out) {
  const int64_t bytes = 4 * layer.inputs;
  const bool as_is = fits(layer, bytes);
  Arena sizes(nullptr);
  if (!as_is) take_rows(sizes, layer, rows);
  const Memory memory = allocate(sizes.used());
  Arena arena(memory.get());
  const RowBuffer converted = as_is ? RowBuffer{} : take_rows(arena, layer, rows);
  const Rows from = as_is ? Rows{reinterpret_cast<const std::byte*>(x), bytes, nullptr, nullptr}
                          : converted.rows();
  Step steps[2];
  on_threads(threads_for(rows * layer.inputs * layer.outputs), [&](int64_t thread) {
    if (!as_is) {
      steps[0].run(thread, rows, [&](int64_t row) {
        convert(layer, x + row * layer.inputs, converted, row);
      });
    }
    multiply(
        {layer, from, rows, activation, residual, out, layer.outputs, nullptr}, steps[1], thread);
  });
}

}  // namespace eefast::cpu
