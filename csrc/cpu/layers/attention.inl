// Attention of one head of one sample, in fp32. Part of panels.inl.

namespace eefast::cpu {
namespace {

constexpr int kQueries = 4;  // rows of scores that are made together
constexpr int kAtOnce = kWidth == 16 ? 4 : 2;  // vectors of each: with the above, the registers

// out[r][0..kVectors) = sum over i of rows[r][i] * matrix[i], whose rows are `stride` apart
template <int kVectors>
EEFAST_INLINE void weigh(
    const float* rows, int64_t rows_stride, int64_t count, const float* matrix, int64_t stride,
    Float (&sums)[kQueries][kVectors]) {
  EEFAST_UNROLL for (int r = 0; r < kQueries; ++r) {
    EEFAST_UNROLL for (int v = 0; v < kVectors; ++v) sums[r][v] = Float{};
  }
  for (int64_t i = 0; i < count; ++i) {
    Float values[kVectors];
    EEFAST_UNROLL for (int v = 0; v < kVectors; ++v) values[v] = load(matrix + i * stride + v * kWidth);
    EEFAST_UNROLL for (int r = 0; r < kQueries; ++r) {
      const float weight = rows[r * rows_stride + i];
      EEFAST_UNROLL for (int v = 0; v < kVectors; ++v) sums[r][v] += values[v] * weight;
    }
  }
}

// Calls body(first vector, constant number of vectors) for `vectors` of them.
template <int kVectors = kAtOnce, class Body>
EEFAST_INLINE void in_blocks(int64_t vectors, const Body& body) {
  int64_t first = 0;
  for (; vectors - first >= kVectors; first += kVectors) body(first, Constant<kVectors>{});
  if constexpr (kVectors > 1) {
    in_blocks<kVectors / 2>(vectors - first, [&](int64_t at, auto constant) { body(first + at, constant); });
  }
}

// A head of a token, rotated by its position, times a number; `stride` between elements.
EEFAST_INLINE void place_head(
    const Head& head, const float* from, int64_t token, float scale, float* to, int64_t stride) {
  if (!head.cosines) {
    for (int64_t e = 0; e < head.width; ++e) to[e * stride] = from[e] * scale;
    return;
  }
  const int64_t half = head.width / 2;
  const float* cosines = head.cosines + token * head.width;
  const float* sines = head.sines + token * head.width;
  for (int64_t e = 0; e < half; ++e) {
    to[e * stride] = (from[e] * cosines[e] - from[half + e] * sines[e]) * scale;
    to[(half + e) * stride] =
        (from[half + e] * cosines[half + e] + from[e] * sines[half + e]) * scale;
  }
}

// A row of scores becomes weights whose sum is returned: 0 if the token sees nothing.
EEFAST_INLINE float weights_of(const Head& head, int64_t token, float* scores) {
  const int64_t tokens = head.tokens, padded = (tokens + kWidth - 1) / kWidth * kWidth;
  const float infinity = __builtin_inff();
  const float* bias = head.bias ? head.bias + token * head.bias_stride : nullptr;
  if (bias || head.mask) {
    for (int64_t t = 0; t < tokens; t += kWidth) {
      const int64_t left = tokens - t;
      Float sum = load(scores + t);
      if (bias) sum += load_some(bias + t, left);
      if (head.mask) sum += load_some(head.mask + t, left);
      store(scores + t, sum);
    }
  }
  if (head.window >= 0) {
    for (int64_t t = 0; t < token - head.window; ++t) scores[t] = head.outside;
    for (int64_t t = token + head.window + 1; t < tokens; ++t) scores[t] = head.outside;
  }
  for (int64_t t = tokens; t < padded; ++t) scores[t] = -infinity;
  Float largest = Float{} - infinity;
  for (int64_t t = 0; t < padded; t += kWidth) largest = Maximum::of(load(scores + t), largest);
  const float most = across_lanes<Maximum>(largest);
  if (most == -infinity) {
    for (int64_t t = 0; t < padded; ++t) scores[t] = 0.0f;
    return 0.0f;
  }
  Float sums = {};
  for (int64_t t = 0; t < padded; t += kWidth) {
    const Float weight = exp(load(scores + t) - most);
    sums += weight;
    store(scores + t, weight);
  }
  return across_lanes<Sum>(sums);
}

void attend(const Head& head) {
  const int64_t tokens = head.tokens, width = head.width;
  const int64_t padded = (tokens + kWidth - 1) / kWidth * kWidth;
  float* const keys = head.scratch;  // [width][padded]
  float* const scores = keys + width * padded;  // [kQueries][padded]
  float* const queries = scores + kQueries * padded;  // [kQueries][width]
  for (int64_t t = 0; t < tokens; ++t) {
    place_head(head, head.keys + t * head.stride, t, 1.0f, keys + t, padded);
  }
  for (int64_t e = 0; e < width; ++e) {
    for (int64_t t = tokens; t < padded; ++t) keys[e * padded + t] = 0.0f;
  }
  for (int64_t first = 0; first < tokens; first += kQueries) {
    const int count = tokens - first < kQueries ? static_cast<int>(tokens - first) : kQueries;
    for (int r = 0; r < kQueries; ++r) {
      const int64_t token = first + (r < count ? r : 0);
      place_head(head, head.queries + token * head.stride, token, head.scale, queries + r * width, 1);
    }
    in_blocks(padded / kWidth, [&](int64_t vector, auto vectors) {
      Float sums[kQueries][vectors.value];
      weigh<vectors.value>(queries, width, width, keys + vector * kWidth, padded, sums);
      EEFAST_UNROLL for (int r = 0; r < kQueries; ++r) {
        EEFAST_UNROLL for (int v = 0; v < vectors.value; ++v) {
          store(scores + r * padded + (vector + v) * kWidth, sums[r][v]);
        }
      }
    });
    float inverse[kQueries] = {};
    for (int r = 0; r < count; ++r) {
      const float sum = weights_of(head, first + r, scores + r * padded);
      inverse[r] = sum == 0.0f ? 0.0f : 1.0f / sum;
    }
    in_blocks((width + kWidth - 1) / kWidth, [&](int64_t vector, auto vectors) {
      Float sums[kQueries][vectors.value];
      // Reads up to a vector beyond the last head; the buffer has room for it.
      weigh<vectors.value>(scores, padded, tokens, head.values + vector * kWidth, head.stride, sums);
      for (int r = 0; r < count; ++r) {
        float* to = head.out + (first + r) * head.out_stride;
        EEFAST_UNROLL for (int v = 0; v < vectors.value; ++v) {
          const int64_t at = (vector + v) * kWidth;
          store_some(to + at, sums[r][v] * inverse[r], width - at);
        }
      }
    });
  }
}

}  // namespace
}  // namespace eefast::cpu
