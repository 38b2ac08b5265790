// What csrc/cuda/exit_step.cuh uses of CUDA, on the emulated device of ../device.h.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../device.h"

#define __global__
#define __device__
#define __launch_bounds__(...)
// The thread-local variables of this library are the shared memory of the block that runs.
#define __shared__ static thread_local

using std::min;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline void __syncthreads(int line = __builtin_LINE()) {
  emulation::wait({emulation::Kind::kBarrier, line});
}

inline void __syncwarp(unsigned mask = 0xFFFFFFFF, int line = __builtin_LINE()) {
  emulation::wait({emulation::Kind::kBallot, line, mask});
}

inline int __syncthreads_or(int value, int line = __builtin_LINE()) {
  return static_cast<int>(emulation::wait({emulation::Kind::kBarrierOr, line, 0, value != 0}));
}

inline unsigned __ballot_sync(unsigned mask, int value, int line = __builtin_LINE()) {
  return static_cast<unsigned>(
      emulation::wait({emulation::Kind::kBallot, line, mask, value != 0}));
}

template <class Value>
Value __shfl_sync(unsigned mask, Value value, int source, int line = __builtin_LINE()) {
  static_assert(sizeof(Value) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(value));
  bits = emulation::wait({emulation::Kind::kShuffle, line, mask, bits, source % 32});
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

template <class Value>
Value __shfl_xor_sync(unsigned mask, Value value, int lanes, int line = __builtin_LINE()) {
  return __shfl_sync(mask, value, static_cast<int>(threadIdx.x) ^ lanes, line);
}

inline void __threadfence() { emulation::fence(); }

inline unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
  emulation::pause();
  const unsigned long long before = *address;
  *address += value;
  emulation::pause();
  return before;
}

using cudaGraphConditionalHandle = unsigned long long;

inline void cudaGraphSetConditional(cudaGraphConditionalHandle handle, unsigned value) {
  emulation::conditionals.emplace_back(handle, value);
}
