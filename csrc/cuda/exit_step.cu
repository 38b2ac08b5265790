#include "exit_step.h"

#include <stdexcept>
#include <string>

#include "exit_step.cuh"

#if CUDART_VERSION < 12040
#error "eefast sets conditional nodes of CUDA graphs from a kernel, which needs CUDA 12.4 or newer"
#endif

namespace eefast::cuda {

void launch(const ExitStep& step, CUstream_st* stream) {
  const auto start = [&](auto* kernel) {
    kernel<<<static_cast<unsigned>(blocks(step)), kThreads, 0, stream>>>(step, fits_vectors(step));
  };
  switch (step.dtype) {
    case Dtype::kFloat32: start(exit_step<float>); break;
    case Dtype::kFloat16: start(exit_step<__half>); break;
    case Dtype::kBFloat16: start(exit_step<__nv_bfloat16>); break;
  }
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(
        std::string("exit_step: the launch failed: ") + cudaGetErrorString(error));
  }
}

bool runs_on_current_device() {
  cudaFuncAttributes attributes;
  const bool runs = cudaFuncGetAttributes(&attributes, exit_step<float>) == cudaSuccess;
  cudaGetLastError();  // forgets a failure, which is an answer here
  return runs;
}

}  // namespace eefast::cuda
