// For every processor that the compiler's target covers: SSE2 on x86-64, NEON on aarch64.

#include "kernels.h"

#define EEFAST_WIDTH 4
#define EEFAST_ROWS 4
#define EEFAST_OUTPUTS 2
#include "kernels.inl"

namespace eefast::cpu {
const Kernels kBaselineKernels = kernels("baseline");
}  // namespace eefast::cpu
