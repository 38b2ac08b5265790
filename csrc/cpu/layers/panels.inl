// The multiplication of rows and a panel, once for all instruction sets.
//
// A translation unit includes panels.h, turns its instructions on, defines EEFAST_WIDTH and includes
// this file. As in ../kernels.inl, everything here has internal linkage.

#include "../vectors.inl"
#include "epilogue.inl"
#include "rows.inl"

namespace eefast::cpu {
namespace {

#define EEFAST_UNROLL _Pragma("GCC unroll 16")

// Every 4 groups, some lines of what comes next are fetched into the second-level cache. The blocks
// of rows share the work.
struct Ahead {
  const std::byte* next;
  const std::byte* end;
  int64_t bytes;  // per 4 groups

  EEFAST_INLINE void fetch() {
    for (const std::byte* stop = next + bytes; next < stop; next += 64) {
      if (next < end) __builtin_prefetch(next, 0, 2);
    }
  }
};

EEFAST_INLINE Ahead ahead_of(const Panel& p, int64_t blocks) {
  if (!p.next) return {nullptr, nullptr, 0};
  return {p.next, p.next + p.next_bytes, (12 + blocks - 1) / blocks * 64};
}

// Sums of kRows rows and kVectors vectors of outputs, by an operation:
//   Sum                              a vector of sums
//   Part, parts(row of weights)      what of it is computed once for all rows
//   add(sum, part, four bytes of a row)
template <class Operation, int kRows, int kVectors>
EEFAST_INLINE void sum_tile(
    const std::byte* rows, int64_t row_bytes, const std::byte* weights, int64_t groups,
    Ahead& ahead, std::byte* sums) {
  typename Operation::Sum acc[kRows][kVectors];
  EEFAST_UNROLL for (int r = 0; r < kRows; ++r) {
    EEFAST_UNROLL for (int v = 0; v < kVectors; ++v) acc[r][v] = typename Operation::Sum{};
  }
  const auto step = [&]() __attribute__((always_inline)) {
    EEFAST_UNROLL for (int v = 0; v < kVectors; ++v) {
      const auto part = Operation::parts(weights + v * kWidth * 4);
      EEFAST_UNROLL for (int r = 0; r < kRows; ++r) {
        Operation::add(acc[r][v], part, rows + r * row_bytes);
      }
    }
    weights += kPanelRow;
    rows += 4;
  };
  for (; groups >= 4; groups -= 4) {
    ahead.fetch();
    EEFAST_UNROLL for (int i = 0; i < 4; ++i) step();
  }
  for (; groups > 0; --groups) step();
  EEFAST_UNROLL for (int r = 0; r < kRows; ++r) {
    EEFAST_UNROLL for (int v = 0; v < kVectors; ++v) {
      __builtin_memcpy(sums + r * kPanelRow + v * kWidth * 4, &acc[r][v], sizeof acc[r][v]);
    }
  }
}

// Three vectors at a time, at most kRows rows.
template <class Operation, int kRows>
void sum_rows(
    const Panel& p, int64_t first, int rows, Ahead& ahead, std::byte* sums) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return sum_rows<Operation, kRows - 1>(p, first, rows, ahead, sums);
  }
  for (int64_t v = 0; v < kPanelRow; v += 3 * kWidth * 4) {
    sum_tile<Operation, kRows, 3>(
        p.rows + first * p.row_bytes, p.row_bytes, p.weights + v, p.groups, ahead, sums + v);
  }
}

template <class Operation, int kRows>
void multiply(const Panel& p) {
  Ahead ahead = ahead_of(p, (p.count + kRows - 1) / kRows * (kPanel / (3 * kWidth)));
  for (int64_t first = 0; first < p.count; first += kRows) {
    alignas(64) std::byte sums[kRows * kPanelRow];
    const int rows = p.count - first < kRows ? static_cast<int>(p.count - first) : kRows;
    sum_rows<Operation, kRows>(p, first, rows, ahead, sums);
    finish<Operation::kPacking>(p, first, rows, sums);
  }
}

EEFAST_INLINE uint32_t four_bytes(const std::byte* from) {
  uint32_t word;
  __builtin_memcpy(&word, from, sizeof word);
  return word;
}

EEFAST_INLINE Word load_words(const std::byte* from) {
  Word words;
  __builtin_memcpy(&words, from, sizeof words);
  return words;
}

struct Float32 {
  static constexpr Packing kPacking = Packing::kFloat32;
  using Sum = Float;
  static EEFAST_INLINE Float parts(const std::byte* weights) { return (Float)load_words(weights); }
  static EEFAST_INLINE void add(Sum& sum, const Float& part, const std::byte* row) {
    float x;
    __builtin_memcpy(&x, row, sizeof x);
    sum += x * part;
  }
};

// A bf16 is the upper half of an fp32.
struct Widened {
  static constexpr Packing kPacking = Packing::kBFloat16;
  using Sum = Float;
  struct Parts {
    Float first, second;
  };
  static EEFAST_INLINE Parts parts(const std::byte* weights) {
    const Word words = load_words(weights);
    return {(Float)(words << 16), (Float)(words & 0xffff0000u)};
  }
  static EEFAST_INLINE void add(Sum& sum, const Parts& part, const std::byte* row) {
    const Word pair = Word{} + four_bytes(row);
    sum += (Float)(pair << 16) * part.first;
    sum += (Float)(pair & 0xffff0000u) * part.second;
  }
};

}  // namespace
}  // namespace eefast::cpu

#include "attention.inl"
