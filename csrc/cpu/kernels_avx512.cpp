#include "kernels.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(                                                  \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define EEFAST_WIDTH 16
#define EEFAST_ROWS 4
#define EEFAST_OUTPUTS 4
#include "kernels.inl"

namespace eefast::cpu {
const Kernels kAvx512Kernels = kernels("avx512");
}  // namespace eefast::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif  // defined(__x86_64__)
