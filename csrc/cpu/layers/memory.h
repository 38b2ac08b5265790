// Memory of one call: parts of one allocation.
//
// Tests may guard memory: then each part ends where an inaccessible page begins, so that a kernel
// that reads or writes beyond it is killed, and is full of NaN until it is written.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace eefast::cpu {

// Guards what is allocated from now on, in all threads, or no longer; whether it was so before. Not
// while a call runs.
bool guard_memory(bool guarded);
bool memory_is_guarded();

struct Free {
  int64_t guarded_bytes = 0;  // 0: memory is not guarded

  void operator()(std::byte* memory) const;
};
using Memory = std::unique_ptr<std::byte, Free>;

Memory allocate(int64_t bytes);

// Hands out parts of memory that begin at multiples of 64 bytes, if it is not guarded. Without
// memory it only counts: whoever takes the same parts twice, first so, knows how much there must be.
class Arena {
 public:
  explicit Arena(std::byte* memory) : memory_(memory) {}

  template <class Element>
  Element* take(int64_t count) {
    return reinterpret_cast<Element*>(take_bytes(count * static_cast<int64_t>(sizeof(Element))));
  }

  int64_t used() const { return used_; }

 private:
  std::byte* take_bytes(int64_t bytes);

  std::byte* memory_;
  int64_t used_ = 0;
};

}  // namespace eefast::cpu
