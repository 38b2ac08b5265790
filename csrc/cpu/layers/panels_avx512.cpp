#include "panels.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(                                                  \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define EEFAST_WIDTH 16
#include "panels.inl"
#define EEFAST_PMADDWD(a, b) (Integer) __builtin_ia32_pmaddwd512_unmasked(a, b)
#if !defined(__clang__)
#undef EEFAST_PMADDWD
#define EEFAST_PMADDWD(a, b) \
  (Integer) __builtin_ia32_pmaddwd512_mask(a, b, Integer{}, static_cast<uint16_t>(-1))
#endif
#include "words.inl"

namespace eefast::cpu {
namespace {

// In assembly, because GCC hoists the broadcasts and then spills the sums. `volatile` keeps each
// broadcast at its products.
#define EEFAST_PRODUCTS(NAME, PACKING, SUM, INSTRUCTION)                                      \
  struct NAME {                                                                               \
    static constexpr Packing kPacking = PACKING;                                              \
    using Sum = SUM;                                                                          \
    static EEFAST_INLINE void add(                                                            \
        Sum& s0, Sum& s1, Sum& s2, const Word& w0, const Word& w1, const Word& w2,            \
        const std::byte* row) {                                                               \
      Word x;                                                                                 \
      asm volatile("vpbroadcastd %4, %3\n\t" INSTRUCTION " %5, %3, %0\n\t" INSTRUCTION        \
                   " %6, %3, %1\n\t" INSTRUCTION " %7, %3, %2"                                \
                   : "+v"(s0), "+v"(s1), "+v"(s2), "=&v"(x)                                   \
                   : "m"(*reinterpret_cast<const Four*>(row)), "v"(w0), "v"(w1), "v"(w2));    \
    }                                                                                         \
  }

struct Four {
  std::byte bytes[4];
};

EEFAST_PRODUCTS(Fused, Packing::kFloat32, Float, "vfmadd231ps");
EEFAST_PRODUCTS(Pairs, Packing::kBFloat16, Float, "vdpbf16ps");
EEFAST_PRODUCTS(Vnni, Packing::kInt8, Integer, "vpdpbusd");

// The sums of kRows rows, as members and not in an array: GCC unrolls loops too late to keep an
// array in registers.
template <class Products, int kRows>
struct Sums {
  typename Products::Sum s0{}, s1{}, s2{};
  Sums<Products, kRows - 1> below;

  EEFAST_INLINE void add(
      const Word& w0, const Word& w1, const Word& w2, const std::byte* row, int64_t row_bytes) {
    Products::add(s0, s1, s2, w0, w1, w2, row);
    below.add(w0, w1, w2, row + row_bytes, row_bytes);
  }

  EEFAST_INLINE void store(std::byte* to) const {
    __builtin_memcpy(to, &s0, 64);
    __builtin_memcpy(to + 64, &s1, 64);
    __builtin_memcpy(to + 128, &s2, 64);
    below.store(to + kPanelRow);
  }
};

template <class Products>
struct Sums<Products, 0> {
  EEFAST_INLINE void add(const Word&, const Word&, const Word&, const std::byte*, int64_t) {}
  EEFAST_INLINE void store(std::byte*) const {}
};

template <class Products, int kRows>
void sum_panel(const Panel& p, int64_t first, int count, Ahead& ahead, std::byte* to) {
  if constexpr (kRows > 1) {
    if (count < kRows) return sum_panel<Products, kRows - 1>(p, first, count, ahead, to);
  }
  const std::byte* rows = p.rows + first * p.row_bytes;
  const std::byte* weights = p.weights;
  Sums<Products, kRows> sums;
  for (int64_t group = 0; group < p.groups; ++group) {
    if (group % 4 == 0) ahead.fetch();
    sums.add(
        load_words(weights), load_words(weights + 64), load_words(weights + 128), rows,
        p.row_bytes);
    weights += kPanelRow;
    rows += 4;
  }
  sums.store(to);
}

template <class Products>
void multiply_in_assembly(const Panel& p) {
  constexpr int kRows = 8;
  Ahead ahead = ahead_of(p, (p.count + kRows - 1) / kRows);
  for (int64_t first = 0; first < p.count; first += kRows) {
    alignas(64) std::byte sums[kRows * kPanelRow];
    const int rows = p.count - first < kRows ? static_cast<int>(p.count - first) : kRows;
    sum_panel<Products, kRows>(p, first, rows, ahead, sums);
    finish<Products::kPacking>(p, first, rows, sums);
  }
}

// ---- AMX ----------------------------------------------------------------------------------------

struct alignas(64) TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t column_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Sums are in tiles 0..2 and 3..5, a row tile in 6, a weight tile in 7.
void configure(int upper, int lower) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.column_bytes[tile] = 64;
    config.rows[tile] = static_cast<uint8_t>(tile < 3 ? upper : tile < 6 ? lower : 16);
  }
  config.rows[6] = static_cast<uint8_t>(upper);
  asm volatile("ldtilecfg %0" ::"m"(config));
}

#define EEFAST_LOAD(TILE, FROM, STRIDE) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" TILE ::"r"(FROM), "r"(STRIDE) : "memory")
#define EEFAST_STORE(TILE, TO) \
  asm volatile("tilestored %%tmm" TILE ", (%0,%1,1)" ::"r"(TO), "r"(kPanelRow) : "memory")
#define EEFAST_ZERO(TILE) asm volatile("tilezero %tmm" TILE)
#define EEFAST_DOT(INTO)                                        \
  if constexpr (kPacking == Packing::kInt8) {                   \
    asm volatile("tdpbusd %tmm7, %tmm6, %tmm" INTO);            \
  } else {                                                      \
    asm volatile("tdpbf16ps %tmm7, %tmm6, %tmm" INTO);          \
  }

// 32 rows in two tiles of 16, or up to 16 rows in one.
template <Packing kPacking, bool kTwo>
void sum_tiles(const Panel& p, int64_t first, Ahead& ahead, std::byte* sums) {
  const std::byte* rows = p.rows + first * p.row_bytes;
  const std::byte* weights = p.weights;
  EEFAST_ZERO("0");
  EEFAST_ZERO("1");
  EEFAST_ZERO("2");
  if constexpr (kTwo) {
    EEFAST_ZERO("3");
    EEFAST_ZERO("4");
    EEFAST_ZERO("5");
  }
#define EEFAST_COLUMNS(UPPER, LOWER, BYTES)                                    \
  EEFAST_LOAD("7", weights + BYTES, kPanelRow);                                \
  EEFAST_LOAD("6", rows, p.row_bytes);                                         \
  EEFAST_DOT(UPPER)                                                            \
  if constexpr (kTwo) {                                                        \
    EEFAST_LOAD("6", rows + 16 * p.row_bytes, p.row_bytes);                    \
    EEFAST_DOT(LOWER)                                                          \
  }
  for (int64_t group = 0; group < p.groups; group += 16) {
    for (int i = 0; i < 4; ++i) ahead.fetch();
    EEFAST_COLUMNS("0", "3", 0)
    EEFAST_COLUMNS("1", "4", 64)
    EEFAST_COLUMNS("2", "5", 128)
    weights += 16 * kPanelRow;
    rows += 64;
  }
  EEFAST_STORE("0", sums);
  EEFAST_STORE("1", sums + 64);
  EEFAST_STORE("2", sums + 128);
  if constexpr (kTwo) {
    EEFAST_STORE("3", sums + 16 * kPanelRow);
    EEFAST_STORE("4", sums + 16 * kPanelRow + 64);
    EEFAST_STORE("5", sums + 16 * kPanelRow + 128);
  }
}

template <Packing kPacking>
void multiply_tiles(const Panel& p) {
  Ahead ahead = ahead_of(p, (p.count + 31) / 32);
  alignas(64) std::byte sums[32 * kPanelRow];
  int64_t first = 0;
  if (p.count >= 16) configure(16, 16);
  for (; p.count - first >= 32; first += 32) {
    sum_tiles<kPacking, true>(p, first, ahead, sums);
    finish<kPacking>(p, first, 32, sums);
  }
  for (; first < p.count; first += 16) {
    const int rows = p.count - first < 16 ? static_cast<int>(p.count - first) : 16;
    if (rows < 16) configure(rows, 16);
    sum_tiles<kPacking, false>(p, first, ahead, sums);
    finish<kPacking>(p, first, rows, sums);
  }
  asm volatile("tilerelease");
}

}  // namespace

const LayerKernels kAvx512Layers = {
    "avx512",
    {multiply_in_assembly<Fused>, multiply<Widened, 8>, multiply<Words, 8>},
    to_bfloat16, quantise, normalise, gate, attend};

const LayerKernels kAvx512VnniLayers = {
    "avx512_vnni",
    {nullptr, multiply_in_assembly<Pairs>, multiply_in_assembly<Vnni>},
    to_bfloat16, quantise, normalise, gate, attend};

const LayerKernels kAmxLayers = {
    "amx",
    {nullptr, multiply_tiles<Packing::kBFloat16>, multiply_tiles<Packing::kInt8>},
    to_bfloat16, quantise, normalise, gate, attend};

}  // namespace eefast::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif  // defined(__x86_64__)
