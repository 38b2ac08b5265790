#pragma once

#include <cstdint>

#include "../../csrc/cuda/exit_step.h"

namespace emulation {

// eefast::cuda::launch on the emulated device, with memory of its own as scratch.
void run(const eefast::cuda::ExitStep& step, uint64_t seed);

}  // namespace emulation
