// Which of the kernels run here.

#pragma once

#include <string>
#include <vector>

#include "kernels.h"
#include "layers/panels.h"

namespace eefast::cpu {

// The kernels that this processor can run, the best first. Never empty.
const std::vector<const Kernels*>& supported_kernels();

// The kernels in use: the best, unless told otherwise.
const Kernels& active_kernels();

// Uses the kernels of that name from now on, in all threads, and returns the name of those used
// before. Throws if the processor cannot run them. For tests and benchmarks.
std::string use_kernels(const std::string& name);

// The same for packed linear layers. Where an instruction set has no kernel for a dtype, or this
// processor lacks it, its entry holds that of the next best set.
const std::vector<LayerKernels>& supported_layer_kernels();
const LayerKernels& active_layer_kernels();
std::string use_layer_kernels(const std::string& name);

// The instruction set whose kernel multiplies in this packing.
std::string layer_kernel_of(Packing packing);

}  // namespace eefast::cpu
