// What a translation unit compiled for one instruction set offers to a packed linear layer.
//
// The outputs of a layer are packed in panels of 48. A row of a panel holds one group of inputs of
// all 48 outputs, 4 bytes for each: one fp32, two bf16 or four s8. So a row is three vectors of
// AVX-512 or six of AVX2, and 16 rows are three tiles of AMX.

#pragma once

#include <cstddef>
#include <cstdint>

namespace eefast::cpu {

inline constexpr int64_t kPanel = 48;
inline constexpr int64_t kPanelRow = 4 * kPanel;  // bytes

enum class Packing : int32_t { kFloat32, kBFloat16, kInt8 };
inline constexpr int kPackings = 3;

enum class Activation : int32_t { kNone, kGelu, kGeluTanh, kRelu, kSilu };

// One panel, the rows that meet it, and what becomes of their sums:
// out = activation(sum + bias) + residual.
struct Panel {
  const std::byte* rows;  // in the layer's dtype, padded to whole groups
  int64_t row_bytes;      // from one row to the next
  int64_t count;
  const std::byte* weights;
  int64_t groups;
  const std::byte* next;  // what will be read next, or null
  int64_t next_bytes;
  const float* bias;      // [48]
  Activation activation;
  const float* residual;  // or null; as far from row to row as out
  float* out;
  int64_t out_stride;
  int64_t columns;  // of the 48 that exist
  // int8 alone: (sum - zero * column_sum) * (row_scale * scale) instead of the sum.
  const float* scales;         // [48]
  const int32_t* column_sums;  // [48]
  const float* row_scales;     // [count]
  const int32_t* row_zeros;    // [count]
};

// One head of one sample: queries, keys and values of its tokens, and what its scores get.
struct Head {
  const float *queries, *keys, *values;  // of token 0; values have a vector of room behind the last
  int64_t stride;                        // from one token to the next
  int64_t tokens, width;
  float scale;           // of the queries
  const float* mask;     // [tokens] or null, added to the scores
  const float* bias;     // [tokens, tokens] or null, added to the scores
  int64_t bias_stride;   // from one row of it to the next
  const float* cosines;  // [tokens, width] or null: queries and keys are not rotated
  const float* sines;
  int64_t window;  // tokens farther apart get the score `outside`; negative: none
  float outside;
  float* scratch;  // of attend_scratch() floats
  float* out;      // of token 0
  int64_t out_stride;
};

// Keys, and scores and queries of four tokens; whole vectors of up to 16.
inline int64_t attend_scratch(int64_t tokens, int64_t width) {
  return (width + 4) * ((tokens + 15) / 16 * 16) + 4 * width;
}

// Each output is summed in one fixed order, whatever the other rows of the call.
struct LayerKernels {
  const char* name;

  // By packing. Null where the instruction set has nothing better than the next one.
  void (*multiply[kPackings])(const Panel& panel);

  // Round to nearest even. `out` is filled with zeros from `width` to `padded`.
  void (*to_bfloat16)(const float* row, int64_t width, int64_t padded, uint16_t* out);

  // value = scale * (q - zero), with zero an exact q. lo and hi are the least and the greatest of
  // the row and of 0; scale = hi / 255 - lo / 255, inverse = 1 / scale, zero = round(-lo * inverse),
  // q = round(value * inverse) + zero within 0..255; rounding is to nearest even, all in fp32. A row
  // whose scale is below 1e-37 counts as zeros; one with an infinity or a NaN gets scale NaN.
  void (*quantise)(
      const float* row, int64_t width, int64_t padded, uint8_t* out, float* scale, int32_t* zero);

  // out = (row - mean) / sqrt(variance + eps) * weight + bias; out may be the row.
  void (*normalise)(
      const float* row, int64_t width, const float* weight, const float* bias, float eps,
      float* out);

  // out[width] = activation(row[0..width)) * row[width..2 width); out may be the row.
  void (*gate)(Activation activation, const float* row, int64_t width, float* out);

  // out = softmax(scale q k^T + bias + mask) v; a row of scores that is -inf throughout gives 0.
  void (*attend)(const Head& head);
};

#if defined(__x86_64__)
extern const LayerKernels kAmxLayers;
extern const LayerKernels kAvx512VnniLayers;  // and AVX-512-BF16
extern const LayerKernels kAvx512Layers;
extern const LayerKernels kAvx2VnniLayers;
extern const LayerKernels kAvx2Layers;
#endif
extern const LayerKernels kBaselineLayers;

}  // namespace eefast::cpu
