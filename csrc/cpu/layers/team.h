// The threads of one call, and steps of work that they share.
//
// A call is one parallel region of torch's own threads, which go through the same steps in the same
// order. In each they claim items until none is left, and go on when all items are done: whoever
// comes late finds less to do, and none waits for a thread that the system does not run.

#pragma once

#include <atomic>
#include <cstdint>

namespace eefast::cpu {

// How many threads are worth waking for so many multiplications; 1 after a fork, whose child has
// none of its parent's threads.
int64_t threads_for(int64_t multiplications);

// Runs body(thread) on at most `threads` threads, with different numbers below `threads`.
void on_threads(int64_t threads, void (*body)(const void* context, int64_t thread), const void* context);

template <class Body>
void on_threads(int64_t threads, const Body& body) {
  on_threads(
      threads,
      [](const void* context, int64_t thread) { (*static_cast<const Body*>(context))(thread); },
      &body);
}

// One step. Each thread with an even number claims from the low end, the others from the high end,
// so that what a thread does next is known, and can be fetched ahead.
class alignas(64) Step {
 public:
  // Calls body(item) for items of 0..count-1 that no other thread has claimed; all of them are done
  // when it returns.
  template <class Body>
  void run(int64_t thread, int64_t count, const Body& body) {
    int64_t mine = 0;
    for (int64_t item; (item = claim(thread % 2 == 0, count)) >= 0; ++mine) body(item);
    if (done_.fetch_add(mine, std::memory_order_acq_rel) + mine < count) wait(count);
  }

 private:
  int64_t claim(bool low, int64_t count) {
    const uint64_t before =
        claimed_.fetch_add(low ? 1 : uint64_t{1} << 32, std::memory_order_relaxed);
    const int64_t lows = before & 0xffffffffu, highs = before >> 32;
    if (lows + highs >= count) return -1;
    return low ? lows : count - 1 - highs;
  }

  void wait(int64_t count) const;

  std::atomic<uint64_t> claimed_{0};
  std::atomic<int64_t> done_{0};
};

}  // namespace eefast::cpu
