// eefast::similarity_step.cpp: exits where a layer hardly turned the hidden vector.

#pragma once

#include <torch/csrc/stable/library.h>

namespace eefast::cpu {

void similarity_step(StableIValue* stack, uint64_t, uint64_t);

}  // namespace eefast::cpu
