#include "panels.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define EEFAST_WIDTH 8
#include "panels.inl"
// The intrinsic's builtin, which clang and GCC name alike.
#define EEFAST_PMADDWD(a, b) (Integer) __builtin_ia32_pmaddwd256(a, b)
#include "words.inl"

namespace eefast::cpu {
namespace {

struct Vnni {
  static constexpr Packing kPacking = Packing::kInt8;
  using Sum = Integer;
  static EEFAST_INLINE Word parts(const std::byte* weights) { return load_words(weights); }
  static EEFAST_INLINE void add(Sum& sum, const Word& part, const std::byte* row) {
    const Word bytes = Word{} + four_bytes(row);
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(bytes), "x"(part));
  }
};

}  // namespace

const LayerKernels kAvx2Layers = {
    "avx2", {multiply<Float32, 4>, multiply<Widened, 4>, multiply<Words, 4>}, to_bfloat16, quantise, normalise, gate, attend};

const LayerKernels kAvx2VnniLayers = {
    "avx2_vnni", {nullptr, nullptr, multiply<Vnni, 4>}, to_bfloat16, quantise, normalise, gate, attend};

}  // namespace eefast::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif  // defined(__x86_64__)
