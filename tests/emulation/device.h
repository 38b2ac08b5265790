// A GPU in one thread of the CPU, for kernels that are compiled as plain C++.
//
// Every thread of a block is a fibre. It runs until it waits for others (a barrier, a shuffle) or
// pauses (an atomic, a fence); a seed decides which thread runs next. A few blocks are resident at a
// time and take turns. Shared memory begins as 0xFF, which is a NaN. A block sees what others have
// written to the scratch memory only after a fence on both sides.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

struct Index {
  unsigned x;
};
extern Index threadIdx, blockIdx, gridDim;  // of the thread that runs

namespace emulation {

enum class Kind { kBarrier, kBarrierOr, kBallot, kShuffle, kPause };

// What a thread waits for, at which line of the kernel.
struct Wait {
  Kind kind;
  int line = 0;
  unsigned mask = 0;
  uint64_t value = 0;
  int source = 0;
};

uint64_t wait(const Wait& wait);  // the result
void pause();
void fence();

// Handles and values of all calls of cudaGraphSetConditional since the launch.
extern std::vector<std::pair<uint64_t, unsigned>> conditionals;

// Runs a kernel, handing it the scratch memory as its block sees it: so many floats, NaN at first.
// Throws std::runtime_error at a deadlock.
void launch(
    unsigned blocks, unsigned threads, size_t floats, uint64_t seed,
    const std::function<void(float* scratch)>& kernel);

}  // namespace emulation
