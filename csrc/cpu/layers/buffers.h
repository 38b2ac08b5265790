// Packed buffers as tensors: what the ops of packed layers have in common.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <string>

#include "../../argument.h"
#include "packed.h"

namespace eefast::cpu {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A new buffer, on huge pages if it is large and the system agrees.
Tensor buffer_of(int64_t bytes);

struct Bytes {
  std::byte* data;  // only read
  int64_t count;
};

// Of a packed buffer; refuses what is no contiguous uint8 [bytes]. `maker` is the op that makes it.
Bytes bytes_of(const char* name, const Tensor& packed, const char* maker = "pack_linear");

// The packed linear layer at the beginning of some bytes, with its header checked.
PackedLinear linear_in(const char* name, const Bytes& bytes);

// Refuses what is no contiguous float32 [rows, width]; rows below 0: any number.
void expect_rows(const char* name, const Tensor& tensor, int64_t rows, int64_t width);

Activation activation_of(const std::string& name);

}  // namespace eefast::cpu
