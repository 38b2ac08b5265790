// The vectorised head, once for all instruction sets.
//
// A translation unit includes kernels.h, turns its instructions on, defines the three numbers
// below and includes this file (see kernels_avx2.cpp):
//
//   EEFAST_WIDTH             floats to a vector
//   EEFAST_ROWS              rows and outputs (a power of two) that a layer takes at a time:
//   EEFAST_OUTPUTS           their sums fill, but do not overflow, the registers
//
// Everything here has internal linkage and calls only functions that have it too: an inline function of the
// standard library, compiled here, could be the copy that the linker keeps for code that runs on
// every processor.

#include "vectors.inl"

namespace eefast::cpu {
namespace {

// Sums live in registers only if the loops over them become straight-line code.
#define EEFAST_UNROLL _Pragma("GCC unroll 16")

// ---- activations --------------------------------------------------------------------------------

// A step of a layer takes one vector of weights, which may hold several vectors of floats.
// Activations lie in memory in the order in which load_parts gives the weights.
template <class Weight>
constexpr int kParts = sizeof(float) / sizeof(Weight);

template <class Weight>
constexpr int kStep = kParts<Weight> * kWidth;

static_assert(kPadding % kStep<BFloat16> == 0);

// Where element i of a row lies among the activations.
template <class Weight>
EEFAST_INLINE int64_t position(int64_t i) {
  const int64_t within = i % kStep<Weight>;
  return i - within + within % kParts<Weight> * kWidth + within / kParts<Weight>;
}

template <class Weight>
void load_row_of(const Weight* row, int64_t width, float* activations) {
  constexpr int kS = kStep<Weight>;
  const int64_t whole = width - width % kS;
  for (int64_t k = 0; k < padded(width); k += kS) {
    Float parts[kParts<Weight>] = {};
    if (k < whole) {
      load_parts(row + k, parts);
    } else if (k < width) {
      Weight rest[kS] = {};
      __builtin_memcpy(rest, row + k, (width - k) * sizeof(Weight));
      load_parts(rest, parts);
    }
    EEFAST_UNROLL for (int p = 0; p < kParts<Weight>; ++p) {
      store(activations + k + p * kWidth, parts[p]);
    }
  }
}

void load_row(Dtype dtype, const void* row, int64_t width, float* activations) {
  if (dtype == Dtype::kBFloat16) {
    load_row_of(static_cast<const BFloat16*>(row), width, activations);
  } else {
    load_row_of(static_cast<const float*>(row), width, activations);
  }
}

// ---- layers -------------------------------------------------------------------------------------

enum class Order { kNatural, kActivations };  // of a row of outputs

template <int kRows, int kOutputs, class Weight>
EEFAST_INLINE void accumulate(
    Float (&sums)[kRows][kOutputs], const float* in, int64_t in_stride, const Weight* weight,
    int64_t weight_stride) {
  constexpr int kP = kParts<Weight>;
  Float rows[kRows][kP];
  EEFAST_UNROLL for (int r = 0; r < kRows; ++r) {
    EEFAST_UNROLL for (int p = 0; p < kP; ++p) rows[r][p] = load(in + r * in_stride + p * kWidth);
  }
  EEFAST_UNROLL for (int o = 0; o < kOutputs; ++o) {
    Float parts[kP];
    load_parts(weight + o * weight_stride, parts);
    EEFAST_UNROLL for (int p = 0; p < kP; ++p) {
      EEFAST_UNROLL for (int r = 0; r < kRows; ++r) sums[r][o] += rows[r][p] * parts[p];
    }
  }
}

// One vector of sums for every output: the order of its additions depends on `inputs` alone.
template <int kRows, int kOutputs, class Weight>
void block(const Linear& layer, const float* in, int64_t output, float* out, Order order) {
  constexpr int kS = kStep<Weight>;
  const int64_t inputs = layer.inputs, in_stride = padded(inputs), whole = inputs - inputs % kS;
  const int64_t out_stride = padded(layer.outputs);
  const Weight* weight = static_cast<const Weight*>(layer.weight) + output * inputs;
  const Weight* bias = static_cast<const Weight*>(layer.bias);

  Float sums[kRows][kOutputs];
  EEFAST_UNROLL for (int r = 0; r < kRows; ++r) {
    EEFAST_UNROLL for (int o = 0; o < kOutputs; ++o) sums[r][o] = Float{};
  }
  for (int64_t k = 0; k < whole; k += kS) accumulate(sums, in + k, in_stride, weight + k, inputs);
  if (whole < inputs) {
    // Memory after the last weights may belong to others, or hold a NaN.
    Weight rest[kOutputs][kS] = {};
    for (int o = 0; o < kOutputs; ++o) {
      __builtin_memcpy(rest[o], weight + o * inputs + whole, (inputs - whole) * sizeof(Weight));
    }
    accumulate(sums, in + whole, in_stride, rest[0], kS);
  }

  EEFAST_UNROLL for (int o = 0; o < kOutputs; ++o) {
    const float shift = bias ? load_one(bias + output + o) : -0.0f;  // x + -0 is x, even for -0
    const int64_t column = order == Order::kActivations ? position<Weight>(output + o) : output + o;
    EEFAST_UNROLL for (int r = 0; r < kRows; ++r) {
      out[r * out_stride + column] = across_lanes<Sum>(sums[r][o]) + shift;
    }
  }
}

template <int kRows, int kOutputs, class Weight>
void all_rows(
    const Linear& layer, const float* in, int64_t rows, int64_t output, float* out, Order order) {
  for (; rows >= kRows; rows -= kRows) {
    block<kRows, kOutputs, Weight>(layer, in, output, out, order);
    in += kRows * padded(layer.inputs);
    out += kRows * padded(layer.outputs);
  }
  if constexpr (kRows > 1) {
    if (rows > 0) all_rows<kRows - 1, kOutputs, Weight>(layer, in, rows, output, out, order);
  }
}

// Weights are the larger operand: each block of them is read once and meets all the rows.
template <int kOutputs, class Weight>
void all_outputs(
    const Linear& layer, const float* in, int64_t rows, int64_t first, int64_t last, float* out,
    Order order) {
  for (; last - first >= kOutputs; first += kOutputs) {
    all_rows<EEFAST_ROWS, kOutputs, Weight>(layer, in, rows, first, out, order);
  }
  if constexpr (kOutputs > 1) {
    if (first < last) {
      all_outputs<kOutputs / 2, Weight>(layer, in, rows, first, last, out, order);
    }
  }
}

void apply(
    const Linear& layer, const float* in, int64_t rows, int64_t first, int64_t last, float* out,
    Order order) {
  if (layer.dtype == Dtype::kBFloat16) {
    all_outputs<EEFAST_OUTPUTS, BFloat16>(layer, in, rows, first, last, out, order);
  } else {
    all_outputs<EEFAST_OUTPUTS, float>(layer, in, rows, first, last, out, order);
  }
}

void pooler(
    const Linear& layer, const float* in, int64_t rows, int64_t first, int64_t last, float* out) {
  const int64_t stride = padded(layer.outputs), end = padded(last);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = last - last % kPadding; i < end; ++i) out[r * stride + i] = 0.0f;
  }
  apply(layer, in, rows, first, last, out, Order::kActivations);
  for (int64_t r = 0; r < rows; ++r) {
    float* row = out + r * stride;
    for (int64_t i = first; i < end; i += kWidth) store(row + i, tanh(load(row + i)));
  }
}

void logits(
    const Linear& layer, const float* in, int64_t rows, int64_t first, int64_t last, float* out) {
  apply(layer, in, rows, first, last, out, Order::kNatural);
}

// ---- softmax ------------------------------------------------------------------------------------

Reductions reduce(const float* logits, int64_t classes) {
  Float maxima = Float{} - __builtin_inff();
  Float unordered = {};  // 1 where a NaN was met
  for (int64_t c = 0; c < classes; c += kWidth) {
    const Float z = load(logits + c);
    maxima = z > maxima ? z : maxima;
    unordered = z != z ? Float{} + 1.0f : unordered;
  }
  int32_t argmax = 0;
  if (across_lanes<Maximum>(unordered) > 0.0f) {
    while (logits[argmax] == logits[argmax]) ++argmax;
    return {argmax, __builtin_nanf(""), __builtin_nanf("")};
  }
  const float maximum = across_lanes<Maximum>(maxima);
  while (logits[argmax] != maximum) ++argmax;

  Float rest = {}, weighted_rest = {};
  for (int64_t c = 0; c < classes; c += kWidth) {
    const Float x = load(logits + c) - maximum;
    Float e = exp(x);
    if (argmax / kWidth == c / kWidth) e[argmax % kWidth] = 0.0f;
    rest += e;
    weighted_rest += e > 0.0f ? x * e : Float{};  // x may be -infinity where e is 0
  }
  const float nan_if_infinite = maximum - maximum;
  return {argmax, across_lanes<Sum>(rest) + nan_if_infinite, across_lanes<Sum>(weighted_rest)};
}

void softmax(const float* logits, int64_t classes, const Reductions& r, float* out) {
  const float maximum = logits[r.argmax], sum = 1.0f + r.rest;
  for (int64_t c = 0; c < classes; c += kWidth) {
    store(out + c, exp(load(logits + c) - maximum) / sum);
  }
}

// ---- scorers ------------------------------------------------------------------------------------

float dot(const float* a, const float* b, int64_t n) {
  const int64_t whole = n - n % kWidth;
  Float sums = {};
  for (int64_t i = 0; i < whole; i += kWidth) sums += load(a + i) * load(b + i);
  if (whole < n) {
    Float x = {}, y = {};
    __builtin_memcpy(&x, a + whole, (n - whole) * sizeof(float));
    __builtin_memcpy(&y, b + whole, (n - whole) * sizeof(float));
    sums += x * y;
  }
  return across_lanes<Sum>(sums);
}

// ---- similarity ---------------------------------------------------------------------------------

// The first `count` elements as a vector, zeros after them; nothing is read beyond.
template <class Element>
EEFAST_INLINE Float load_up_to(const Element* from, int64_t count) {
  if (count >= kWidth) return load_floats(from);
  Element some[kWidth] = {};
  __builtin_memcpy(some, from, count * sizeof(Element));
  return load_floats(some);
}

EEFAST_INLINE void store_up_to(float* to, Float value, int64_t count) {
  if (count >= kWidth) return store(to, value);
  __builtin_memcpy(to, &value, count * sizeof(float));
}

// 1 over the norm. As in torch's cosine_similarity, a norm is 1e-8 at least.
EEFAST_INLINE float inverse_norm(const Float& squares) {
  const float norm = __builtin_sqrtf(across_lanes<Sum>(squares));
  return 1.0f / (norm < 1e-8f ? 1e-8f : norm);
}

template <class Element>
float similarity_of(const Element* row, int64_t width, float* previous) {
  Float row_squares = {}, previous_squares = {};
  for (int64_t i = 0; i < width; i += kWidth) {
    const Float x = load_up_to(row + i, width - i), y = load_up_to(previous + i, width - i);
    row_squares += x * x;
    previous_squares += y * y;
  }
  // Divided before they meet: the product of two large vectors overflows where neither norm does.
  const float of_row = inverse_norm(row_squares), of_previous = inverse_norm(previous_squares);
  Float sums = {};
  for (int64_t i = 0; i < width; i += kWidth) {
    const Float x = load_up_to(row + i, width - i), y = load_up_to(previous + i, width - i);
    sums += x * of_row * (y * of_previous);
    store_up_to(previous + i, x, width - i);
  }
  return across_lanes<Sum>(sums);
}

float similarity(Dtype dtype, const void* row, int64_t width, float* previous) {
  if (dtype == Dtype::kBFloat16) {
    return similarity_of(static_cast<const BFloat16*>(row), width, previous);
  }
  return similarity_of(static_cast<const float*>(row), width, previous);
}

constexpr Kernels kernels(const char* name) {
  return {name, load_row, pooler, logits, reduce, softmax, dot, similarity};
}

#undef EEFAST_UNROLL
#undef EEFAST_INLINE

}  // namespace
}  // namespace eefast::cpu
