// The torch ops of packed linear layers, on the stable ABI.

#include "../instruction_set.h"
#include "buffers.h"

namespace eefast::cpu {
namespace {

constexpr int64_t kLargestInputs = 1 << 16;  // so that a sum of int8 products fits 32 bits

// Contiguous, in fp32.
Tensor float_values(const char* name, const Tensor& tensor) {
  if (tensor.scalar_type() != ScalarType::Float && tensor.scalar_type() != ScalarType::BFloat16) {
    fail(name, " must be float32 or bfloat16; got ", torch::headeronly::toString(tensor.scalar_type()));
  }
  return torch::stable::contiguous(torch::stable::to(tensor, ScalarType::Float));
}

Packing packing_of(const std::string& dtype) {
  if (dtype == "float32") return Packing::kFloat32;
  if (dtype == "bfloat16") return Packing::kBFloat16;
  if (dtype == "int8") return Packing::kInt8;
  fail("dtype must be float32, bfloat16 or int8; got ", dtype);
}

Tensor pack_linear(const Tensor& weight, std::optional<Tensor> bias, std::string dtype) {
  const Packing packing = packing_of(dtype);
  if (weight.dim() != 2 || weight.size(0) < 1 || weight.size(1) < 1) {
    fail("weight must be [outputs, inputs], both at least 1; got ", weight.dim(), " dimensions, ",
         weight.numel(), " elements");
  }
  const int64_t outputs = weight.size(0), inputs = weight.size(1);
  expect_in("outputs", outputs, 1, kLargest);
  expect_in("inputs", inputs, 1, packing == Packing::kInt8 ? kLargestInputs : kLargest);
  if (bias && (bias->dim() != 1 || bias->size(0) != outputs)) {
    fail("bias must be [", outputs, "]; got ", bias->dim(), " dimensions, ", bias->numel(),
         " elements");
  }
  const Tensor values = float_values("weight", weight);
  std::optional<Tensor> shifts;
  if (bias) shifts = float_values("bias", *bias);
  PackedLinear packed{packing, outputs, inputs, nullptr};
  Tensor buffer = buffer_of(packed.bytes());
  packed.buffer = static_cast<std::byte*>(buffer.mutable_data_ptr());
  if (!pack(packed, values.const_data_ptr<float>(), shifts ? shifts->const_data_ptr<float>() : nullptr)) {
    fail("weight must be finite to be packed in int8");
  }
  return buffer;
}

Tensor packed_linear(
    const Tensor& x, const Tensor& packed, std::string activation, std::optional<Tensor> residual) {
  const Bytes bytes = bytes_of("packed", packed);
  const PackedLinear layer = linear_in("packed", bytes);
  if (layer.bytes() != bytes.count) fail("packed must be what pack_linear returned");
  expect_rows("x", x, -1, layer.inputs);
  const int64_t rows = x.size(0);
  if (residual) expect_rows("residual", *residual, rows, layer.outputs);
  const Activation kind = activation_of(activation);
  Tensor out = torch::stable::new_empty(x, {rows, layer.outputs});
  if (rows > 0) {
    multiply_alone(
        layer, x.const_data_ptr<float>(), rows, kind,
        residual ? residual->const_data_ptr<float>() : nullptr, out.mutable_data_ptr<float>());
  }
  return out;
}

std::vector<std::string> layer_instruction_sets() {
  std::vector<std::string> names;
  for (const LayerKernels& kernels : supported_layer_kernels()) names.emplace_back(kernels.name);
  return names;
}

std::string layer_kernel(std::string dtype) { return layer_kernel_of(packing_of(dtype)); }

}  // namespace
}  // namespace eefast::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(eefast, m) {
  // Packs a weight [outputs, inputs] and a bias [outputs] for dtype float32, bfloat16 or int8.
  m.def("pack_linear(Tensor weight, Tensor? bias, str dtype) -> Tensor");
  m.def(
      "packed_linear(Tensor x, Tensor packed, str activation, Tensor? residual=None) -> Tensor");
  // The instruction set whose kernel runs layers of this dtype.
  m.def("cpp_layer_kernel(str dtype) -> str");
  // For tests and benchmarks, as cpp_instruction_sets and cpp_use_instruction_set.
  m.def("cpp_layer_instruction_sets() -> str[]");
  m.def("cpp_use_layer_instruction_set(str name) -> str");
  // For tests; see memory.h.
  m.def("cpp_guard_memory(bool guarded) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CPU, m) {
  m.impl("pack_linear", TORCH_BOX(&eefast::cpu::pack_linear));
  m.impl("packed_linear", TORCH_BOX(&eefast::cpu::packed_linear));
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CompositeExplicitAutograd, m) {
  m.impl("cpp_layer_kernel", TORCH_BOX(&eefast::cpu::layer_kernel));
  m.impl("cpp_layer_instruction_sets", TORCH_BOX(&eefast::cpu::layer_instruction_sets));
  m.impl("cpp_use_layer_instruction_set", TORCH_BOX(&eefast::cpu::use_layer_kernels));
  m.impl("cpp_guard_memory", TORCH_BOX(&eefast::cpu::guard_memory));
}
