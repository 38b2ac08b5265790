#include "instruction_set.h"

#include <atomic>
#include <stdexcept>

namespace eefast::cpu {
namespace {

std::vector<const Kernels*> detect() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    found.push_back(&kAvx512Kernels);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    found.push_back(&kAvx2Kernels);
  }
#endif
  found.push_back(&kBaselineKernels);
  return found;
}

std::atomic<const Kernels*>& active() {
  static std::atomic<const Kernels*> kernels{supported_kernels().front()};
  return kernels;
}

}  // namespace

const std::vector<const Kernels*>& supported_kernels() {
  static const std::vector<const Kernels*> kernels = detect();
  return kernels;
}

const Kernels& active_kernels() { return *active().load(std::memory_order_relaxed); }

std::string use_kernels(const std::string& name) {
  std::string known;
  for (const Kernels* kernels : supported_kernels()) {
    if (name == kernels->name) return active().exchange(kernels)->name;
    known += known.empty() ? kernels->name : std::string(", ") + kernels->name;
  }
  throw std::runtime_error(
      "instruction set '" + name + "' does not run on this processor; these do: " + known);
}

}  // namespace eefast::cpu
