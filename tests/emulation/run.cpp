// The kernel, compiled for the emulated device.

#include "run.h"

#include "cuda_runtime.h"
#include "exit_step.cuh"  // that of csrc/cuda, or a changed copy

namespace emulation {

using namespace eefast::cuda;

void run(const ExitStep& step, uint64_t seed) {
  const auto start = [&](auto* kernel) {
    launch(
        static_cast<unsigned>(blocks(step)), kThreads, static_cast<size_t>(scratch_floats(step)),
        seed, [&](float* scratch) {
          ExitStep with_scratch = step;
          with_scratch.scratch = scratch;
          kernel(with_scratch, fits_vectors(step));
        });
  };
  with_kernel(step, start);
}

}  // namespace emulation
