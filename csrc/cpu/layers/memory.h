// Memory of one call: parts of one allocation.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace eefast::cpu {

struct Free {
  void operator()(std::byte* memory) const { ::operator delete(memory, std::align_val_t{64}); }
};
using Memory = std::unique_ptr<std::byte, Free>;

inline Memory allocate(int64_t bytes) {
  return Memory(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{64})));
}

// Hands out parts of memory that begin at multiples of 64 bytes. Without memory it only counts:
// whoever takes the same parts twice, first so, knows how much there must be.
class Arena {
 public:
  explicit Arena(std::byte* memory) : memory_(memory) {}

  template <class Element>
  Element* take(int64_t count) {
    std::byte* part = memory_ ? memory_ + used_ : nullptr;
    used_ += (count * static_cast<int64_t>(sizeof(Element)) + 63) / 64 * 64;
    return reinterpret_cast<Element*>(part);
  }

  int64_t used() const { return used_; }

 private:
  std::byte* memory_;
  int64_t used_ = 0;
};

}  // namespace eefast::cpu
