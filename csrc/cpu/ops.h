// Ops that other ops call.

#pragma once

#include <torch/csrc/stable/library.h>

namespace eefast::cpu {

// eefast::exit_step.cpp, boxed: 19 arguments, which it owns from then on.
void exit_step(StableIValue* stack, uint64_t arguments, uint64_t results);

}  // namespace eefast::cpu
