// A linear layer's weights, packed once into one buffer:
//
//   header, 64 bytes | bias f32 [P] | int8 alone: scales f32 [P], column sums i32 [P] | panels
//
// where P is the number of outputs, padded to whole panels. See panels.h for a panel.

#pragma once

#include "memory.h"
#include "panels.h"
#include "team.h"

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

// Rows in a layer's dtype, as the kernels take them.
struct Rows {
  const std::byte* data;
  int64_t bytes;         // from one row to the next
  const float* scales;   // of each row; int8 alone
  const int32_t* zeros;  // of each row; int8 alone
};

// Room for converted rows, part of an arena.
struct RowBuffer {
  std::byte* data;
  int64_t bytes;
  float* scales;
  int32_t* zeros;

  Rows rows() const { return {data, bytes, scales, zeros}; }
};

// Bytes from one row to the next in a buffer of a layer's inputs: a multiple of 64, and none of
// 4096, where all rows would share one set of the first-level cache.
int64_t row_bytes(const PackedLinear& layer);
RowBuffer take_rows(Arena& arena, const PackedLinear& layer, int64_t rows);

// Whether fp32 rows that lie so far apart can be multiplied where they are.
inline bool fits(const PackedLinear& layer, int64_t bytes) {
  return layer.packing == Packing::kFloat32 && bytes % 4096 != 0;
}

// Puts one fp32 row of a layer's inputs into a buffer.
void convert(const PackedLinear& layer, const float* row, const RowBuffer& to, int64_t index);

// out = activation(rows W^T + bias) + residual, where residual may be null and lies as out does.
struct Product {
  const PackedLinear& layer;
  Rows rows;
  int64_t count;
  Activation activation;
  const float* residual;
  float* out;
  int64_t out_stride;        // in floats
  const PackedLinear* next;  // what is multiplied after this, or null
};

// This thread's part of a product.
void multiply(const Product& product, Step& step, int64_t thread);

// A product by itself, with threads of its own; x is [rows, inputs], the others [rows, outputs].
void multiply_alone(
    const PackedLinear& layer, const float* x, int64_t rows, Activation activation,
    const float* residual, float* out);

}  // namespace eefast::cpu
