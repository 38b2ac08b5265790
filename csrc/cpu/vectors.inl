// Vectors of one instruction set, in GCC's and clang's vector extensions: loads and stores, sums
// across the lanes, exp and tanh. Part of kernels.inl.

namespace eefast::cpu {
namespace {

#define EEFAST_INLINE __attribute__((always_inline)) inline

constexpr int kWidth = EEFAST_WIDTH;

typedef float Float __attribute__((vector_size(kWidth * 4)));
typedef uint32_t Word __attribute__((vector_size(kWidth * 4)));
typedef uint16_t Half __attribute__((vector_size(kWidth * 2)));

struct BFloat16 {
  uint16_t bits;
};

// ---- loads and stores ---------------------------------------------------------------------------

EEFAST_INLINE Float load(const float* from) {
  Float value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

EEFAST_INLINE void store(float* to, Float value) { __builtin_memcpy(to, &value, sizeof value); }

// As many vectors of floats as one vector of that type holds. Two bfloat16 share a word: the first
// vector gets the even elements, the second the odd ones.
EEFAST_INLINE void load_parts(const float* from, Float (&parts)[1]) { parts[0] = load(from); }

// A bfloat16 is the upper half of a float32.
EEFAST_INLINE void load_parts(const BFloat16* from, Float (&parts)[2]) {
  Word pairs;
  __builtin_memcpy(&pairs, from, sizeof pairs);
  parts[0] = (Float)(pairs << 16);
  parts[1] = (Float)(pairs & 0xffff0000u);
}

// One vector of floats, in the natural order.
EEFAST_INLINE Float load_floats(const float* from) { return load(from); }

EEFAST_INLINE Float load_floats(const BFloat16* from) {
  Half halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  return (Float)(__builtin_convertvector(halves, Word) << 16);
}

EEFAST_INLINE float load_one(const float* from) { return *from; }

EEFAST_INLINE float load_one(const BFloat16* from) {
  const uint32_t bits = static_cast<uint32_t>(from->bits) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// ---- across the lanes ---------------------------------------------------------------------------

typedef float Float4 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32)));

template <class Half, class Whole>
EEFAST_INLINE void halve(const Whole& whole, Half& low, Half& high) {
  __builtin_memcpy(&low, &whole, sizeof low);
  __builtin_memcpy(&high, reinterpret_cast<const char*>(&whole) + sizeof low, sizeof high);
}

struct Sum {
  template <class Value>
  static EEFAST_INLINE Value of(const Value& a, const Value& b) {
    return a + b;
  }
};

struct Maximum {
  template <class Value>
  static EEFAST_INLINE Value of(const Value& a, const Value& b) {
    return a > b ? a : b;
  }
};

template <class Operation, class Vector>
EEFAST_INLINE float across_lanes(const Vector& value) {
  if constexpr (sizeof(Vector) == 64) {
    Float8 low, high;
    halve(value, low, high);
    return across_lanes<Operation>(Operation::of(low, high));
  } else if constexpr (sizeof(Vector) == 32) {
    Float4 low, high;
    halve(value, low, high);
    return across_lanes<Operation>(Operation::of(low, high));
  } else {
    const float even = Operation::of(value[0], value[2]), odd = Operation::of(value[1], value[3]);
    return Operation::of(even, odd);
  }
}

// ---- exp and tanh: Cephes' polynomials, within 2 ulp --------------------------------------------

// exp(x) for x <= 80, and 0 below -87; NaN stays NaN.
EEFAST_INLINE Float exp(Float x) {
  const Float bounded = x < -87.0f ? Float{} - 87.0f : x;
  // Adding 1.5 * 2^23 leaves n = round(x / ln 2) in the lowest bits of the mantissa: no conversion
  // to integers, which NaN would not survive.
  const float shifter = 12582912.0f;
  const Float shifted = bounded * 1.44269504f + shifter;
  const Float n = shifted - shifter;
  const Float r = bounded - n * 0.693359375f - n * -2.12194440e-4f;
  Float p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Float power = (Float)(((Word)shifted << 23) + 0x3f800000u);
  const Float value = (p * r * r + r + 1.0f) * power;
  return x < -87.0f ? Float{} : value;
}

EEFAST_INLINE Float tanh(Float x) {
  const Word sign = (Word)x & 0x80000000u;
  const Float magnitude = (Float)((Word)x ^ sign);
  const Float bounded = magnitude > 10.0f ? Float{} + 10.0f : magnitude;
  const Float far = 1.0f - 2.0f / (exp(bounded + bounded) + 1.0f);
  // Near 0 that difference cancels.
  const Float square = x * x;
  Float p = square * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * square - 5.37397155531e-2f;
  p = p * square + 1.33314422036e-1f;
  p = p * square - 3.33332819422e-1f;
  const Float near = p * square * x + x;
  return magnitude < 0.625f ? near : (Float)((Word)far | sign);
}

}  // namespace
}  // namespace eefast::cpu
