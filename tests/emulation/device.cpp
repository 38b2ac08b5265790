#include "device.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

#include "fibre.h"

Index threadIdx, blockIdx, gridDim;

namespace emulation {

std::vector<std::pair<uint64_t, unsigned>> conditionals;

namespace {

constexpr unsigned kWarp = 32;
constexpr size_t kResident = 3;  // blocks that take turns

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}

  unsigned below(size_t bound) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<unsigned>((state_ >> 33) % bound);
  }

 private:
  uint64_t state_;
};

// The thread-local memory of this library, which is where the kernel's shared variables are.
struct SharedMemory {
  char* data = nullptr;
  size_t size = 0;
};

SharedMemory find_shared_memory() {
  static thread_local volatile char touched;  // without a use, the memory is not there yet
  touched = 1;
  Dl_info here;
  dladdr(reinterpret_cast<void*>(&find_shared_memory), &here);
  std::pair<const void*, SharedMemory> found{here.dli_fbase, {}};
  dl_iterate_phdr(
      [](dl_phdr_info* library, size_t, void* context) {
        auto& [base, memory] = *static_cast<decltype(found)*>(context);
        if (reinterpret_cast<const void*>(library->dlpi_addr) != base) return 0;
        for (int i = 0; i < library->dlpi_phnum; ++i) {
          if (library->dlpi_phdr[i].p_type != PT_TLS) continue;
          memory = {static_cast<char*>(library->dlpi_tls_data), library->dlpi_phdr[i].p_memsz};
        }
        return 1;
      },
      &found);
  if (!found.second.data) throw std::runtime_error("the kernel's shared memory was not found");
  return found.second;
}

enum class State { kReady, kWaiting, kDone };

struct Thread {
  explicit Thread(void (*entry)()) : fibre(entry) {}

  Fibre fibre;
  State state = State::kReady;
  Wait wait{};
  uint64_t result = 0;
};

// Threads outlive their block: each runs the kernel once for every block that it is lent to.
using Threads = std::vector<std::unique_ptr<Thread>>;

// What one block sees of the scratch memory.
class View {
 public:
  explicit View(std::vector<uint32_t>& memory) : memory_(memory), size_(memory.size()) {
    seen_.reset(new uint32_t[size_]);
    known_.reset(new uint32_t[size_]);
    refresh();
  }

  float* data() { return reinterpret_cast<float*>(seen_.get()); }

  // To the others, and from them.
  void exchange() {
    for (size_t i = 0; i < size_; ++i) {
      if (seen_[i] != known_[i]) memory_[i] = seen_[i];
    }
    refresh();
  }

 private:
  void refresh() {
    std::copy(memory_.begin(), memory_.end(), seen_.get());
    std::copy(memory_.begin(), memory_.end(), known_.get());
  }

  std::vector<uint32_t>& memory_;
  size_t size_;
  std::unique_ptr<uint32_t[]> seen_, known_;  // of the exact size, for the sanitiser
};

struct Block {
  unsigned index;
  Threads threads;
  std::vector<char> shared;
  View view;
  unsigned done = 0;
};

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::kBarrier: return "__syncthreads";
    case Kind::kBarrierOr: return "__syncthreads_or";
    case Kind::kBallot: return "__ballot_sync";
    case Kind::kShuffle: return "a shuffle";
    case Kind::kPause: return "an atomic";
  }
  return "";
}

bool same(const Wait& a, const Wait& b) {
  return a.kind == b.kind && a.line == b.line && a.mask == b.mask;
}

Block* running_block = nullptr;
Thread* running_thread = nullptr;
bool paused = false;
const std::function<void(float*)>* running_kernel = nullptr;

void run_kernels() {
  for (;;) {
    (*running_kernel)(running_block->view.data());
    running_thread->state = State::kDone;
    running_thread->fibre.suspend();
  }
}

class Grid {
 public:
  Grid(unsigned blocks, unsigned threads, size_t floats, uint64_t seed)
      : threads_(threads),
        random_(seed),
        memory_(floats, 0xFFFFFFFF),
        shared_(find_shared_memory()) {
    for (unsigned i = 0; i < blocks; ++i) waiting_.push_back(i);
    for (unsigned i = 1; i < blocks; ++i) std::swap(waiting_[i], waiting_[random_.below(i + 1)]);
  }

  void run() {
    while (!waiting_.empty() || !resident_.empty()) {
      while (resident_.size() < kResident && !waiting_.empty()) admit();
      const size_t turn = random_.below(resident_.size());
      Block& block = *resident_[turn];
      enter(block);
      // Some warps of it, until the next block's turn. Where blocks meet, turns are short.
      do {
        paused = false;
        step(block);
      } while (block.done < threads_ && random_.below(paused ? 2 : 16) != 0);
      std::memcpy(block.shared.data(), shared_.data, shared_.size);
      if (block.done == threads_) {
        block.view.exchange();
        pool().push_back(std::move(block.threads));
        resident_.erase(resident_.begin() + static_cast<std::ptrdiff_t>(turn));
      }
    }
  }

 private:
  // A pool of threads, because stacks are expensive. Those of a failed launch never return to it.
  static std::vector<Threads>& pool() {
    static std::vector<Threads> pool;
    return pool;
  }

  void admit() {
    Threads threads;
    if (!pool().empty()) {
      threads = std::move(pool().back());
      pool().pop_back();
    }
    while (threads.size() < threads_) threads.push_back(std::make_unique<Thread>(run_kernels));
    for (auto& thread : threads) thread->state = State::kReady;
    resident_.push_back(std::make_unique<Block>(Block{
        waiting_.back(), std::move(threads), std::vector<char>(shared_.size, '\xFF'),
        View(memory_)}));
    waiting_.pop_back();
  }

  void enter(Block& block) {
    std::memcpy(shared_.data, block.shared.data(), shared_.size);
    running_block = &block;
    blockIdx.x = block.index;
  }

  // Runs one warp until it waits, or lets all threads pass a barrier.
  void step(Block& block) {
    const unsigned warps = threads_ / kWarp, start = random_.below(warps);
    for (unsigned i = 0; i < warps; ++i) {
      if (run_warp(block, (start + i) % warps * kWarp)) return;
    }
    pass_barrier(block);
  }

  // Whether any of its threads could run.
  bool run_warp(Block& block, unsigned first) {
    bool any = false;
    // A full cycle through the lanes, from anywhere, by any odd stride.
    const unsigned start = random_.below(kWarp), stride = 2 * random_.below(kWarp / 2) + 1;
    for (unsigned i = 0; i < kWarp; ++i) {
      const unsigned index = first + (start + i * stride) % kWarp;
      Thread& thread = *block.threads[index];
      if (thread.state != State::kReady) continue;
      any = true;
      threadIdx.x = index;
      running_thread = &thread;
      thread.fibre.resume();
      if (thread.state == State::kDone) ++block.done;
    }
    for (unsigned i = 0; any && i < kWarp; ++i) exchange(block, first, i);
    return any;
  }

  // Completes what a lane waits for, if all lanes of its mask wait for the same.
  void exchange(Block& block, unsigned first, unsigned asking) {
    const auto lane = [&](unsigned i) -> Thread& { return *block.threads[first + i]; };
    const Wait wait = lane(asking).wait;
    if (lane(asking).state != State::kWaiting || !wait.mask) return;
    uint64_t ballot = 0;
    for (unsigned i = 0; i < kWarp; ++i) {
      if (!(wait.mask >> i & 1)) continue;
      if (lane(i).state != State::kWaiting || !same(lane(i).wait, wait)) return;
      ballot |= lane(i).wait.value << i;
    }
    for (unsigned i = 0; i < kWarp; ++i) {
      if (!(wait.mask >> i & 1)) continue;
      const auto source = static_cast<unsigned>(lane(i).wait.source);
      if (wait.kind == Kind::kShuffle && !(wait.mask >> source & 1)) {
        fail(block, first + i, "reads a lane that is not in its mask");
      }
      lane(i).result = wait.kind == Kind::kBallot ? ballot : lane(source).wait.value;
      lane(i).state = State::kReady;
    }
  }

  void pass_barrier(Block& block) {
    std::optional<unsigned> reference;
    uint64_t any = 0;
    for (unsigned i = 0; i < threads_; ++i) {
      const Thread& thread = *block.threads[i];
      if (thread.state == State::kDone) continue;
      if (!reference) reference = i;
      if (thread.wait.mask) fail(block, i, "waits for lanes that do not come");
      if (!same(thread.wait, block.threads[*reference]->wait)) {
        fail(block, i, "waits at another barrier than thread " + std::to_string(*reference));
      }
      any |= thread.wait.value;
    }
    if (reference && block.done) fail(block, *reference, "waits for threads that have returned");
    for (auto& thread : block.threads) {
      thread->result = any;
      if (thread->state == State::kWaiting) thread->state = State::kReady;
    }
  }

  [[noreturn]] void fail(const Block& block, unsigned index, const std::string& what) {
    const Wait& wait = block.threads[index]->wait;
    std::ostringstream message;
    message << "deadlock: thread " << index << " of block " << block.index << ", in "
            << name_of(wait.kind) << " at line " << wait.line << ", " << what;
    throw std::runtime_error(message.str());
  }

  unsigned threads_;
  Random random_;
  std::vector<uint32_t> memory_;
  SharedMemory shared_;
  std::vector<unsigned> waiting_;
  std::vector<std::unique_ptr<Block>> resident_;
};

}  // namespace

uint64_t wait(const Wait& wait) {
  Thread& thread = *running_thread;
  thread.wait = wait;
  thread.state = wait.kind == Kind::kPause ? State::kReady : State::kWaiting;
  thread.fibre.suspend();
  return thread.result;
}

void pause() {
  paused = true;
  wait({Kind::kPause});
}

void fence() {
  running_block->view.exchange();
  pause();
}

void launch(
    unsigned blocks, unsigned threads, size_t floats, uint64_t seed,
    const std::function<void(float*)>& kernel) {
  conditionals.clear();
  gridDim.x = blocks;
  running_kernel = &kernel;
  const SharedMemory shared = find_shared_memory();
  const std::vector<char> before(shared.data, shared.data + shared.size);
  const auto restore = [&] { std::copy(before.begin(), before.end(), shared.data); };
  try {
    Grid(blocks, threads, floats, seed).run();
  } catch (...) {
    restore();
    throw;
  }
  restore();
}

}  // namespace emulation
