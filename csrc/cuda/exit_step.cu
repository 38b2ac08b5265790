#include "exit_step.h"

#include <stdexcept>
#include <string>

#include "exit_step.cuh"

#if CUDART_VERSION < 12040
#error "eefast sets conditional nodes of CUDA graphs from a kernel, which needs CUDA 12.4 or newer"
#endif

namespace eefast::cuda {
namespace {

__global__ void set_conditional_kernel(const bool* flag, cudaGraphConditionalHandle handle) {
  cudaGraphSetConditional(handle, *flag);
}

void check_launch(const char* name) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(
        std::string(name) + ": the launch failed: " + cudaGetErrorString(error));
  }
}

}  // namespace

void launch(const ExitStep& step, CUstream_st* stream) {
  const auto start = [&](auto* kernel) {
    kernel<<<static_cast<unsigned>(blocks(step)), kThreads, 0, stream>>>(step, fits_vectors(step));
  };
  with_kernel(step, start);
  check_launch("exit_step");
}

void set_conditional(const bool* flag, uint64_t handle, CUstream_st* stream) {
  set_conditional_kernel<<<1, 1, 0, stream>>>(flag, handle);
  check_launch("set_conditional");
}

bool runs_on_current_device() {
  cudaFuncAttributes attributes;
  const bool runs = cudaFuncGetAttributes(&attributes, exit_step<float, false>) == cudaSuccess;
  cudaGetLastError();  // clears the error: a failure only means no here
  return runs;
}

}  // namespace eefast::cuda
