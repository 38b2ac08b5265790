#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <new>

namespace eefast::cpu {
namespace {

std::atomic<bool> guards{false};

int64_t rounded_up(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

int64_t page() {
  static const int64_t bytes = sysconf(_SC_PAGESIZE);
  return bytes;
}

}  // namespace

bool guard_memory(bool guarded) { return guards.exchange(guarded); }
bool memory_is_guarded() { return guards.load(std::memory_order_relaxed); }

void Free::operator()(std::byte* memory) const {
  if (guarded_bytes > 0) {
    munmap(memory, guarded_bytes);
  } else {
    ::operator delete(memory, std::align_val_t{64});
  }
}

Memory allocate(int64_t bytes) {
  if (!memory_is_guarded() || bytes == 0) {
    return Memory(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{64})));
  }
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  std::memset(memory, 0xff, bytes);
  return Memory(static_cast<std::byte*>(memory), Free{bytes});
}

std::byte* Arena::take_bytes(int64_t bytes) {
  const bool guarded = memory_is_guarded();
  const int64_t room = rounded_up(bytes, guarded ? page() : 64);
  std::byte* const begin = memory_ ? memory_ + used_ : nullptr;
  used_ += room;
  if (!guarded) return begin;
  used_ += page();
  if (!begin) return nullptr;
  if (mprotect(begin + room, page(), PROT_NONE) != 0) throw std::bad_alloc();
  return begin + room - bytes;
}

}  // namespace eefast::cpu
