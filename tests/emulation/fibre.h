// A thread of execution with its own stack, which runs until it yields.

#pragma once

#include <cstddef>
#include <memory>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulation {

inline constexpr size_t kStackBytes = 64 << 10;

#if defined(__x86_64__)

// ucontext would do, but asks the kernel about signals at each switch: 370 ns there and back
// instead of 20.
struct Context {
  void* stack_pointer = nullptr;
};

extern "C" void emulation_switch(void** from, void* to);
asm(R"(
.text
.hidden emulation_switch
emulation_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

inline void begin(Context& context, char* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // where a call would have put its return address: aligns the stack
  *--top = reinterpret_cast<void*>(entry);
  context.stack_pointer = top - 6;  // the registers, whatever is in them
}

inline void hand_over(Context& from, Context& to) {
  emulation_switch(&from.stack_pointer, to.stack_pointer);
}

#else

struct Context {
  ucontext_t state;
};

inline void begin(Context& context, char* stack, void (*entry)()) {
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = stack;
  context.state.uc_stack.ss_size = kStackBytes;
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
}

inline void hand_over(Context& from, Context& to) { swapcontext(&from.state, &to.state); }

#endif

class Fibre {
 public:
  // `entry` never returns.
  explicit Fibre(void (*entry)()) { begin(own_, stack_.get(), entry); }

  void resume() { hand_over(resumer_, own_); }
  void suspend() { hand_over(own_, resumer_); }

 private:
  std::unique_ptr<char[]> stack_{new char[kStackBytes]};
  Context own_, resumer_;
};

}  // namespace emulation
