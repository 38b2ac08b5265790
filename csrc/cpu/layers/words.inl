// Products of u8 and s8 in words of 16 bits, exactly: pmaddubsw would saturate. Part of a
// translation unit for AVX2 or AVX-512, which defines EEFAST_PMADDWD.

namespace eefast::cpu {
namespace {

typedef int16_t Short __attribute__((vector_size(kWidth * 4)));

struct Words {
  static constexpr Packing kPacking = Packing::kInt8;
  using Sum = Integer;
  struct Parts {
    Short even, odd;
  };
  static EEFAST_INLINE Parts parts(const std::byte* weights) {
    const Short words = (Short)load_words(weights);
    return {(Short)(words << 8) >> 8, words >> 8};
  }
  static EEFAST_INLINE void add(Sum& sum, const Parts& part, const std::byte* row) {
    const Word bytes = Word{} + four_bytes(row);
    sum += EEFAST_PMADDWD((Short)(bytes & 0x00ff00ffu), part.even);
    sum += EEFAST_PMADDWD((Short)(bytes >> 8 & 0x00ff00ffu), part.odd);
  }
};

}  // namespace
}  // namespace eefast::cpu
