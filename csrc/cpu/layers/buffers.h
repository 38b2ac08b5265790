// Packed buffers as tensors: what the ops of packed layers have in common.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <string>

#include "../../argument.h"
#include "block.h"

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

// Refuses what is no contiguous fp32 tensor on the CPU.
template <size_t kDim>
const float* floats_of(
    const char* name, const Tensor& tensor, const std::array<int64_t, kDim>& shape) {
  bool fits = tensor.scalar_type() == ScalarType::Float && tensor.is_contiguous() &&
      tensor.is_cpu() && tensor.dim() == static_cast<int64_t>(kDim);
  for (size_t axis = 0; fits && axis < kDim; ++axis) fits = tensor.size(axis) == shape[axis];
  if (!fits) {
    std::string wanted;
    for (const int64_t size : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(size);
    fail(name, " must be float32 [", wanted, "] on the CPU, contiguous; got ",
         torch::headeronly::toString(tensor.scalar_type()), " with ", tensor.dim(),
         " dimensions, ", tensor.numel(), " elements");
  }
  return tensor.const_data_ptr<float>();
}

// The block in a packed buffer, with all its headers checked.
Block block_in(const Tensor& packed);

Activation activation_of(const std::string& name);

}  // namespace eefast::cpu
