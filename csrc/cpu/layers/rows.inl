// What happens to whole rows between two linear layers. Part of panels.inl.

namespace eefast::cpu {
namespace {

// Sum over a row of x - less, or of its square.
template <bool kSquared>
EEFAST_INLINE float sum_of(const float* row, int64_t width, float less) {
  Float sums = {};
  for (int64_t i = 0; i < width; i += kWidth) {
    const int64_t left = width - i;
    const Float apart = load_some(row + i, left) - less;
    const Float terms = kSquared ? apart * apart : apart;
    if (left >= kWidth) {
      sums += terms;
    } else {
      for (int64_t j = 0; j < left; ++j) sums[j] += terms[j];
    }
  }
  return across_lanes<Sum>(sums);
}

void normalise(
    const float* row, int64_t width, const float* weight, const float* bias, float eps,
    float* out) {
  const float each = 1.0f / static_cast<float>(width);
  const float mean = each * sum_of<false>(row, width, 0.0f);
  const float variance = each * sum_of<true>(row, width, mean);
  const float inverse = 1.0f / __builtin_sqrtf(variance + eps);
  for (int64_t i = 0; i < width; i += kWidth) {
    const int64_t left = width - i;
    const Float x = (load_some(row + i, left) - mean) * inverse;
    store_some(out + i, x * load_some(weight + i, left) + load_some(bias + i, left), left);
  }
}

template <Activation kActivation>
void gate_with(const float* row, int64_t width, float* out) {
  for (int64_t i = 0; i < width; i += kWidth) {
    const int64_t left = width - i;
    const Float active = activate<kActivation>(load_some(row + i, left));
    store_some(out + i, active * load_some(row + width + i, left), left);
  }
}

void gate(Activation activation, const float* row, int64_t width, float* out) {
  with(activation, [&](auto kind) { gate_with<kind.value>(row, width, out); });
}

}  // namespace
}  // namespace eefast::cpu
