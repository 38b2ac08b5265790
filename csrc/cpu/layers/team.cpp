#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <torch/csrc/stable/ops.h>

namespace eefast::cpu {
namespace {

// The multiplications from which on a second thread is worth waking.
constexpr int64_t kWorkPerThread = 1 << 18;

// Looks at a step before the thread lets others run: some 50 us.
constexpr int kSpins = 2000;

// libgomp's team does not survive a fork: a child that asks for it waits for ever.
std::atomic<bool> forked{false};
const int at_fork = pthread_atfork(nullptr, nullptr, [] { forked = true; });

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

int64_t threads_for(int64_t multiplications) {
  if (forked || multiplications < 2 * kWorkPerThread) return 1;
  return torch::stable::get_num_threads();
}

void on_threads(
    int64_t threads, void (*body)(const void* context, int64_t thread), const void* context) {
  if (threads == 1) return body(context, 0);
  torch::stable::parallel_for(
      0, threads, 1, [&](int64_t thread, int64_t) { body(context, thread); });
}

void Step::wait(int64_t count) const {
  for (int spins = 0; done_.load(std::memory_order_acquire) < count; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      sched_yield();
    }
  }
}

}  // namespace eefast::cpu
