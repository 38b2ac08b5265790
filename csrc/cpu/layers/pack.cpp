#include <cmath>
#include <cstring>

#include "packed.h"

namespace eefast::cpu {
namespace {

uint16_t nearest_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(
      (value != value ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Where input k of an output lies from the start of the output's column.
int64_t place(const PackedLinear& to, int64_t k) {
  const int64_t each = to.inputs_per_group();
  return k / each * kPanelRow + k % each * to.element_bytes();
}

bool pack_int8(const PackedLinear& to, const float* row, int64_t output, std::byte* column) {
  float largest = 0.0f;
  for (int64_t k = 0; k < to.inputs; ++k) {
    if (!std::isfinite(row[k])) return false;
    largest = std::fmax(largest, std::fabs(row[k]));
  }
  const float scale = largest / 127.0f;
  int32_t sum = 0;
  for (int64_t k = 0; k < to.inputs; ++k) {
    const float q = scale > 0.0f ? std::nearbyint(row[k] / scale) : 0.0f;
    const int8_t byte = static_cast<int8_t>(std::fmax(-127.0f, std::fmin(127.0f, q)));
    sum += byte;
    std::memcpy(column + place(to, k), &byte, 1);
  }
  to.scales()[output] = scale;
  to.column_sums()[output] = sum;
  return true;
}

}  // namespace

bool pack(const PackedLinear& to, const float* weight, const float* bias) {
  std::memset(to.buffer, 0, to.bytes());
  PackedHeader header{{'e', 'e', 'p', 'a', 'c', 'k', '0', '1'}, to.packing, 0, to.outputs,
                      to.inputs, to.bytes(), {}};
  std::memcpy(to.buffer, &header, sizeof header);
  if (bias) std::memcpy(to.bias(), bias, to.outputs * sizeof(float));
  for (int64_t output = 0; output < to.outputs; ++output) {
    const float* row = weight + output * to.inputs;
    std::byte* column = to.panel(output / kPanel) + output % kPanel * 4;
    if (to.packing == Packing::kInt8) {
      if (!pack_int8(to, row, output, column)) return false;
      continue;
    }
    for (int64_t k = 0; k < to.inputs; ++k) {
      if (to.packing == Packing::kFloat32) {
        std::memcpy(column + place(to, k), row + k, 4);
      } else {
        const uint16_t half = nearest_bfloat16(row[k]);
        std::memcpy(column + place(to, k), &half, 2);
      }
    }
  }
  return true;
}

}  // namespace eefast::cpu
