#include "instruction_set.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

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

#if defined(__x86_64__)
// GCC 12 and older clangs know no names for these.
struct Leaf7 {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  explicit Leaf7(uint32_t sub) { __get_cpuid_count(7, sub, &a, &b, &c, &d); }
};

// Whether the system lets this process use the tiles: it must be asked once.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

std::vector<LayerKernels> detect_layers() {
  std::vector<LayerKernels> found;
  // Those packings for which the processor has the instructions; from the worst to the best.
  const auto add = [&](LayerKernels kernels, bool bfloat16, bool int8) {
    if (!bfloat16 && !int8) return;
    const auto& next = found.back().multiply;
    auto& own = kernels.multiply;
    if (!own[0]) own[0] = next[0];
    if (!own[1] || !bfloat16) own[1] = next[1];
    if (!own[2] || !int8) own[2] = next[2];
    found.push_back(kernels);
  };
  found.push_back(kBaselineLayers);
#if defined(__x86_64__)
  __builtin_cpu_init();
  const Leaf7 first(0), second(1);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    add(kAvx2Layers, true, true);
    const bool vnni = second.a >> 4 & 1;
    add(kAvx2VnniLayers, false, vnni);
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    add(kAvx512Layers, true, true);
    const bool bfloat16 = second.a >> 5 & 1, vnni = first.c >> 11 & 1;
    add(kAvx512VnniLayers, bfloat16, vnni);
    const bool tiles = first.d >> 24 & 1 && may_use_tiles();
    add(kAmxLayers, tiles && first.d >> 22 & 1, tiles && first.d >> 25 & 1);
  }
#endif
  return {found.rbegin(), found.rend()};
}

std::atomic<const LayerKernels*>& active_layers() {
  static std::atomic<const LayerKernels*> kernels{&supported_layer_kernels().front()};
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

const std::vector<LayerKernels>& supported_layer_kernels() {
  static const std::vector<LayerKernels> kernels = detect_layers();
  return kernels;
}

const LayerKernels& active_layer_kernels() {
  return *active_layers().load(std::memory_order_relaxed);
}

std::string use_layer_kernels(const std::string& name) {
  std::string known;
  for (const LayerKernels& kernels : supported_layer_kernels()) {
    if (name == kernels.name) return active_layers().exchange(&kernels)->name;
    known += known.empty() ? kernels.name : std::string(", ") + kernels.name;
  }
  throw std::runtime_error(
      "instruction set '" + name + "' does not run on this processor; these do: " + known);
}

std::string layer_kernel_of(Packing packing) {
  const auto index = static_cast<int>(packing);
  std::string name;
  for (const LayerKernels& kernels : supported_layer_kernels()) {  // the owner is the worst of these
    if (kernels.multiply[index] == active_layer_kernels().multiply[index]) name = kernels.name;
  }
  return name;
}

}  // namespace eefast::cpu
