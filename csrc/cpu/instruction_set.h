// Which of the kernels run here.

#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace eefast::cpu {

// The kernels that this processor can run, the best first. Never empty.
const std::vector<const Kernels*>& supported_kernels();

// The kernels in use: the best, unless told otherwise.
const Kernels& active_kernels();

// Uses the kernels of that name from now on, in all threads, and returns the name of those used
// before. Throws if the processor cannot run them. For tests and benchmarks.
std::string use_kernels(const std::string& name);

}  // namespace eefast::cpu
