// For every processor that the compiler's target covers.

#include "panels.h"

#define EEFAST_WIDTH 4
#include "panels.inl"

namespace eefast::cpu {
namespace {

struct Bytes {
  static constexpr Packing kPacking = Packing::kInt8;
  using Sum = Integer;
  struct Parts {
    Integer byte[4];
  };
  static EEFAST_INLINE Parts parts(const std::byte* weights) {
    const Word words = load_words(weights);
    return {
        {(Integer)(words << 24) >> 24, (Integer)(words << 16) >> 24, (Integer)(words << 8) >> 24,
         (Integer)words >> 24}};
  }
  static EEFAST_INLINE void add(Sum& sum, const Parts& part, const std::byte* row) {
    EEFAST_UNROLL for (int i = 0; i < 4; ++i) sum += static_cast<int32_t>(row[i]) * part.byte[i];
  }
};

}  // namespace

const LayerKernels kBaselineLayers = {
    "baseline",
    {multiply<Float32, 2>, multiply<Widened, 2>, multiply<Bytes, 2>},
    to_bfloat16, quantise, normalise, gate, attend};

}  // namespace eefast::cpu
