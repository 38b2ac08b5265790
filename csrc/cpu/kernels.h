// What a translation unit compiled for one instruction set offers to the rest.
//
// Only plain types cross this border. kernels.inl is compiled with instructions that the processor
// may lack, so neither side may instantiate an inline function that the linker could then share.

#pragma once

#include <cstdint>

#include "../policy.h"

namespace eefast::cpu {

enum class Dtype { kFloat32, kBFloat16 };

// Rows of activations and of logits are padded to a multiple of this many floats, so that loops
// over them need no remainder.
inline constexpr int64_t kPadding = 32;

constexpr int64_t padded(int64_t width) { return (width + kPadding - 1) / kPadding * kPadding; }

// A linear layer's weights, [outputs, inputs] and [outputs], contiguous.
struct Linear {
  Dtype dtype;
  const void* weight;
  const void* bias;  // or null
  int64_t inputs;
  int64_t outputs;
};

// Activations are rows of padded(width) floats, in an order that the instruction set chooses. Each output of a layer is summed in one fixed order, whatever the other rows and
// outputs of the call.
struct Kernels {
  const char* name;

  // One row of `width` elements, as the activations of a layer of that dtype.
  void (*load_row)(Dtype dtype, const void* row, int64_t width, float* activations);

  // tanh(layer(in)) as the activations of another layer of the same dtype. Outputs first..last of
  // each row; `first` is a multiple of kPadding, and so is `last` unless it is the layer's last.
  void (*pooler)(
      const Linear& layer, const float* in, int64_t rows, int64_t first, int64_t last, float* out);

  // layer(in), in the natural order. Outputs first..last of each row; its padding is not written.
  void (*logits)(
      const Linear& layer, const float* in, int64_t rows, int64_t first, int64_t last, float* out);

  // Of one row of logits, padded with -infinity.
  Reductions (*reduce)(const float* logits, int64_t classes);

  // The probabilities of a padded row of logits, from its reductions. `out` is padded too; what pads
  // it becomes 0, or NaN with the rest.
  void (*softmax)(const float* logits, int64_t classes, const Reductions& r, float* out);

  // The sum of a[i] * b[i]. Neither is read beyond n.
  float (*dot)(const float* a, const float* b, int64_t n);

  // The cosine similarity of a row of `width` elements and `previous`, which then becomes the row.
  float (*similarity)(Dtype dtype, const void* row, int64_t width, float* previous);
};

#if defined(__x86_64__)
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx2Kernels;
#endif
extern const Kernels kBaselineKernels;

}  // namespace eefast::cpu
