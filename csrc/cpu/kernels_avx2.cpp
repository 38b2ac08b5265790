#include "kernels.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define EEFAST_WIDTH 8
#define EEFAST_ROWS 3
#define EEFAST_OUTPUTS 4
#include "kernels.inl"

namespace eefast::cpu {
const Kernels kAvx2Kernels = kernels("avx2");
}  // namespace eefast::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif  // defined(__x86_64__)
