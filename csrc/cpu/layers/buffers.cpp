#include "buffers.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace eefast::cpu {
namespace {

constexpr int64_t kHugePage = 1 << 21;

template <class Deleter>
Tensor bytes_at(void* memory, int64_t bytes, Deleter free) {
  return torch::stable::from_blob(
      memory, {bytes}, {1}, torch::stable::Device(torch::headeronly::DeviceType::CPU),
      ScalarType::Byte, free);
}

Tensor guarded_buffer_of(int64_t bytes) {
  Arena size(nullptr);
  size.take<std::byte>(bytes);
  Memory memory = allocate(size.used());
  std::byte* const begin = Arena(memory.get()).take<std::byte>(bytes);
  const Free free = memory.get_deleter();
  return bytes_at(begin, bytes, [all = memory.release(), free](void*) { free(all); });
}

}  // namespace

Tensor buffer_of(int64_t bytes) {
  if (memory_is_guarded()) return guarded_buffer_of(bytes);
  const int64_t alignment = bytes >= kHugePage ? kHugePage : 64;
  void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (!memory) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (alignment == kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: it may fail
#endif
  return bytes_at(memory, bytes, static_cast<void (*)(void*)>(std::free));
}

Bytes bytes_of(const char* name, const Tensor& packed, const char* maker) {
  if (packed.scalar_type() != ScalarType::Byte || packed.dim() != 1 || !packed.is_contiguous()) {
    fail(name, " must be what ", maker, " returned, uint8 [bytes], contiguous; got ",
         torch::headeronly::toString(packed.scalar_type()), " with ", packed.dim(), " dimensions");
  }
  return {static_cast<std::byte*>(const_cast<void*>(packed.const_data_ptr())), packed.numel()};
}

PackedLinear linear_in(const char* name, const Bytes& bytes) {
  PackedHeader header;
  const bool room = bytes.count >= static_cast<int64_t>(sizeof header);
  if (room) std::memcpy(&header, bytes.data, sizeof header);
  if (!room || std::memcmp(header.magic, "eepack01", 8) != 0) {
    fail(name, " must be what pack_linear returned");
  }
  const bool sane = static_cast<uint32_t>(header.packing) < kPackings && header.outputs >= 1 &&
      header.outputs <= kLargest && header.inputs >= 1 && header.inputs <= kLargest;
  const PackedLinear layer{header.packing, header.outputs, header.inputs, bytes.data};
  if (!sane || layer.bytes() != header.bytes || header.bytes > bytes.count) {
    fail(name, " is damaged: its header does not fit its ", bytes.count, " bytes");
  }
  return layer;
}

void expect_rows(const char* name, const Tensor& tensor, int64_t rows, int64_t width) {
  if (tensor.scalar_type() != ScalarType::Float || tensor.dim() != 2 || !tensor.is_contiguous() ||
      (rows >= 0 && tensor.size(0) != rows) || tensor.size(1) != width) {
    fail(name, " must be float32 [", rows < 0 ? "rows" : std::to_string(rows), ", ", width,
         "], contiguous; got ", torch::headeronly::toString(tensor.scalar_type()), " with ",
         tensor.dim(), " dimensions, ", tensor.numel(), " elements");
  }
}

Activation activation_of(const std::string& name) {
  constexpr const char* kNames[] = {"none", "gelu", "gelu_tanh", "relu", "silu"};
  for (int i = 0; i < 5; ++i) {
    if (name == kNames[i]) return static_cast<Activation>(i);
  }
  fail("activation must be none, gelu, gelu_tanh, relu or silu; got ", name);
}

}  // namespace eefast::cpu
