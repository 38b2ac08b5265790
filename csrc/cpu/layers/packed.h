// A linear layer's weights, packed once into one buffer:
//
//   header, 64 bytes | bias f32 [P] | int8 alone: scales f32 [P], column sums i32 [P] | panels
//
// where P is the number of outputs, padded to whole panels. See panels.h for a panel.

#pragma once

#include "panels.h"

namespace eefast::cpu {

struct PackedHeader {
  char magic[8];
  Packing packing;
  int32_t unused;
  int64_t outputs, inputs, bytes;  // bytes of the whole buffer
  int64_t reserved[3];
};
static_assert(sizeof(PackedHeader) == 64);

struct PackedLinear {
  Packing packing;
  int64_t outputs, inputs;
  std::byte* buffer;  // of bytes() bytes

  int64_t inputs_per_group() const { return packing == Packing::kFloat32 ? 1 : packing == Packing::kBFloat16 ? 2 : 4; }
  int64_t element_bytes() const { return 4 / inputs_per_group(); }
  // AMX takes 16 groups at a time.
  int64_t groups() const {
    const int64_t all = (inputs + inputs_per_group() - 1) / inputs_per_group();
    return packing == Packing::kFloat32 ? all : (all + 15) / 16 * 16;
  }
  int64_t panels() const { return (outputs + kPanel - 1) / kPanel; }
  int64_t vector_bytes() const { return panels() * kPanelRow; }
  int64_t panel_bytes() const { return groups() * kPanelRow; }
  int64_t front() const { return 64 + (packing == Packing::kInt8 ? 3 : 1) * vector_bytes(); }
  int64_t bytes() const { return front() + panels() * panel_bytes(); }

  float* bias() const { return reinterpret_cast<float*>(buffer + 64); }
  float* scales() const { return reinterpret_cast<float*>(buffer + 64 + vector_bytes()); }
  int32_t* column_sums() const {
    return reinterpret_cast<int32_t*>(buffer + 64 + 2 * vector_bytes());
  }
  std::byte* panel(int64_t index) const { return buffer + front() + index * panel_bytes(); }
};

// Fills the buffer from weights [outputs, inputs] and a bias [outputs] or null. int8: per output,
// scale = max |w| / 127 and q = w / scale, rounded to nearest even; false if a weight is not finite.
bool pack(const PackedLinear& to, const float* weight, const float* bias);

// out = activation(x W^T + bias) + residual; x is [rows, inputs], the others [rows, outputs], all of
// them contiguous, residual may be null.
void multiply(
    const PackedLinear& layer, const float* x, int64_t rows, Activation activation,
    const float* residual, float* out);

}  // namespace eefast::cpu
