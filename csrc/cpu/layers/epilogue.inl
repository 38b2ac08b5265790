// What happens to rows before and to sums after the multiplication, once for all instruction sets.
// Part of panels.inl.

namespace eefast::cpu {
namespace {

typedef int32_t Integer __attribute__((vector_size(kWidth * 4)));
typedef uint8_t Byte __attribute__((vector_size(kWidth)));

// A product that is not contracted into a fused multiply-add, so that it is the same everywhere.
EEFAST_INLINE Float rounded_product(Float a, Float b) {
  Float product = a * b;
#if defined(__x86_64__)
  if constexpr (sizeof(Float) == 64) {
    asm("" : "+v"(product));
  } else {
    asm("" : "+x"(product));
  }
#elif defined(__aarch64__)
  asm("" : "+w"(product));
#endif
  return product;
}

// To nearest even, for magnitudes below 2^22.
EEFAST_INLINE Float nearest(Float x) {
  const float shifter = 12582912.0f;
  return (x + shifter) - shifter;
}

EEFAST_INLINE Float absolute(Float x) { return (Float)((Word)x & 0x7fffffffu); }

// Zeros from `count` on; nothing is read beyond.
EEFAST_INLINE Float load_some(const float* from, int64_t count) {
  if (count >= kWidth) return load(from);
  Float value = {};
  if (count > 0) __builtin_memcpy(&value, from, count * sizeof(float));
  return value;
}

// The first `count` elements alone.
EEFAST_INLINE void store_some(float* to, Float value, int64_t count) {
  if (count >= kWidth) {
    store(to, value);
  } else {
    __builtin_memcpy(to, &value, count * sizeof(float));
  }
}

void to_bfloat16(const float* row, int64_t width, int64_t padded, uint16_t* out) {
  for (int64_t i = 0; i < padded; i += kWidth) {
    const Float x = load_some(row + i, width - i);
    const Word bits = (Word)x;
    const Word even = bits + 0x7fffu + (bits >> 16 & 1u);
    const Half halves = __builtin_convertvector((x != x ? bits | 0x400000u : even) >> 16, Half);
    __builtin_memcpy(out + i, &halves, sizeof halves);
  }
}

void quantise(
    const float* row, int64_t width, int64_t padded, uint8_t* out, float* scale, int32_t* zero) {
  Float lows = {}, highs = {}, strange = {};
  for (int64_t i = 0; i < width; i += kWidth) {
    const Float x = load_some(row + i, width - i);
    lows = x < lows ? x : lows;
    highs = x > highs ? x : highs;
    strange = absolute(x) <= __FLT_MAX__ ? strange : Float{} + 1.0f;
  }
  const float low = -across_lanes<Maximum>(-lows), high = across_lanes<Maximum>(highs);
  float step = high / 255.0f - low / 255.0f;
  if (across_lanes<Maximum>(strange) > 0.0f || step < 1e-37f) {
    *scale = across_lanes<Maximum>(strange) > 0.0f ? __builtin_nanf("") : 0.0f;
    *zero = 0;
    __builtin_memset(out, 0, padded);
    return;
  }
  const Float inverse = Float{} + 1.0f / step;
  const Float shift = nearest(rounded_product(Float{} - low, inverse));
  *scale = step;
  *zero = static_cast<int32_t>(shift[0]);
  for (int64_t i = 0; i < padded; i += kWidth) {
    Float q = nearest(rounded_product(load_some(row + i, width - i), inverse)) + shift;
    q = q < 0.0f ? Float{} : q;
    q = q > 255.0f ? Float{} + 255.0f : q;
    const Byte bytes = __builtin_convertvector(__builtin_convertvector(q, Integer), Byte);
    __builtin_memcpy(out + i, &bytes, sizeof bytes);
  }
}

// All of them are max(x, 0) - b * tail(b), where b is |x|, bounded where the tail is 0: so infinity
// stays infinity, and the error is relative to |x|.
//
// GELU: tail(b) = erfc(b / sqrt(2)) / 2 by Abramowitz and Stegun 7.1.26, whose error is at most
// 1.5e-7 in erfc. So GELU is within 0.75e-7 |x| of exact, and as much again for its rounding.
template <Activation kActivation>
EEFAST_INLINE Float activate(Float x) {
  if constexpr (kActivation == Activation::kNone) return x;
  const Float positive = x < 0.0f ? Float{} : x;
  if constexpr (kActivation == Activation::kRelu) return positive;
  const Float magnitude = absolute(x);
  const Float b = magnitude > 100.0f ? Float{} + 100.0f : magnitude;
  Float tail;
  if constexpr (kActivation == Activation::kGelu) {
    const Float t = 1.0f / (b * (0.3275911f * 0.70710678f) + 1.0f);
    Float p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    tail = 0.5f * p * t * exp(b * b * -0.5f);
  } else {
    const Float argument = kActivation == Activation::kSilu
        ? b
        : b * (b * b * (0.044715f * 1.5957691216f) + 1.5957691216f);
    const Float e = exp(-argument);
    tail = e / (e + 1.0f);
  }
  return positive - b * tail;
}

template <auto kValue>
struct Constant {
  static constexpr auto value = kValue;
};

// Calls body(constant), whose `value` is the activation.
template <class Body>
EEFAST_INLINE void with(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::kNone:
      return body(Constant<Activation::kNone>{});
    case Activation::kGelu:
      return body(Constant<Activation::kGelu>{});
    case Activation::kGeluTanh:
      return body(Constant<Activation::kGeluTanh>{});
    case Activation::kRelu:
      return body(Constant<Activation::kRelu>{});
    case Activation::kSilu:
      return body(Constant<Activation::kSilu>{});
  }
}

// activation(sum + bias) of one vector of a row's outputs; `zero` and `scale` are the row's.
template <Packing kPacking, Activation kActivation>
EEFAST_INLINE Float finished(
    const std::byte* sums, const float* bias, const float* scales, const int32_t* column_sums,
    int64_t column, int32_t zero, float scale) {
  Float sum;
  if constexpr (kPacking == Packing::kInt8) {
    Integer whole, columns;
    __builtin_memcpy(&whole, sums, sizeof whole);
    __builtin_memcpy(&columns, column_sums + column, sizeof columns);
    sum = __builtin_convertvector(whole - zero * columns, Float) * (scale * load(scales));
  } else {
    __builtin_memcpy(&sum, sums, sizeof sum);
  }
  return activate<kActivation>(load(bias) + sum);
}

template <Packing kPacking, Activation kActivation>
void finish_with(const Panel& panel, int64_t first, int rows, const std::byte* sums) {
  const Panel p = panel;  // a copy, which `out` cannot overlap
  constexpr bool kInt8 = kPacking == Packing::kInt8;
  for (int r = 0; r < rows; ++r) {
    const int64_t row = first + r;
    const int32_t zero = kInt8 ? p.row_zeros[row] : 0;
    const float scale = kInt8 ? p.row_scales[row] : 0.0f;
    float* const out = p.out + row * p.out_stride;
    const float* const residual = p.residual ? p.residual + row * p.out_stride : nullptr;
    const std::byte* const of_row = sums + r * kPanelRow;
    const float* const scales = kInt8 ? p.scales : p.bias;  // other dtypes do not read them
    int64_t c = 0;
    for (; c + kWidth <= p.columns; c += kWidth) {
      Float x = finished<kPacking, kActivation>(
          of_row + 4 * c, p.bias + c, scales + c, p.column_sums, c, zero, scale);
      if (residual) x += load(residual + c);
      store(out + c, x);
    }
    if (const int64_t left = p.columns - c; left > 0) {
      Float x = finished<kPacking, kActivation>(
          of_row + 4 * c, p.bias + c, scales + c, p.column_sums, c, zero, scale);
      if (residual) x += load_some(residual + c, left);
      store_some(out + c, x, left);
    }
  }
}

template <Packing kPacking>
void finish(const Panel& p, int64_t first, int rows, const std::byte* sums) {
  with(p.activation, [&](auto kind) { finish_with<kPacking, kind.value>(p, first, rows, sums); });
}

}  // namespace
}  // namespace eefast::cpu
