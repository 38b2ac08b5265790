// The torch ops of the CPU implementation, on the stable ABI.

#include <array>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "../arguments.h"
#include "exit_step.h"
#include "instruction_set.h"
#include "ops.h"
#include "similarity_step.h"

namespace eefast::cpu {

// Boxed by hand, because Argument needs it. All checks come before the first write.
void exit_step(StableIValue* stack, uint64_t, uint64_t) {
  const Tensors on(stack);
  const int32_t float32 = aoti_torch_dtype_float32(), bfloat16 = aoti_torch_dtype_bfloat16();
  const Call call = checked(on, {float32, bfloat16}, "Float or BFloat16");

  const int64_t* sample_of_row = checked_elements(on.rows, "rows", call.samples);
  const int64_t* offset_of_row = checked_elements(on.offsets, "offsets", call.tokens);

  const bool is_bfloat16 = on.hidden.dtype() == bfloat16;
  const int64_t element = is_bfloat16 ? 2 : 4;
  const Dtype dtype = is_bfloat16 ? Dtype::kBFloat16 : Dtype::kFloat32;
  const Linear pooler{
      dtype, on.pooler_weight.data<void>(), on.pooler_bias.data<void>(), call.width, call.width};
  const float* table = on.table.data<float>();
  const float* row_of_table = table + 3 * (call.exit - 1);
  const bool ensemble = call.accumulate == Accumulate::kLogProbabilities;
  run({
      on.hidden.data<std::byte>(),
      on.hidden.stride(0) * element,
      call.rows,
      sample_of_row,
      offset_of_row,
      on.pooler_weight.given() ? &pooler : nullptr,
      {dtype, on.weight.data<void>(), on.bias.data<void>(), call.width, call.outputs()},
      call.classes,
      on.cascade.data<float>(),
      on.scorer.data<float>(),
      on.scorer.given() ? on.scorer.size(0) : 0,
      {call.keep, call.gain, call.strict, call.last_exit(), row_of_table[0], row_of_table[1],
       row_of_table[2], call.accumulate, call.scorer},
      call.exit,
      ensemble ? total_tau(table, call.exit) : 0.0f,
      call.layer,
      on.score.mutable_data<float>(),
      on.prediction.mutable_data<int32_t>(),
      on.exit_layer.mutable_data<int32_t>(),
      on.logits.mutable_data<float>(),
      on.running.mutable_data<bool>() + (call.exit - 1),
      on.votes.mutable_data<float>(),
      on.memory.mutable_data<float>(),
      on.memory.given() ? on.memory.size(1) : 0,
  });
}

namespace {

OwnedTensor empty(std::initializer_list<int64_t> sizes, int32_t dtype) {
  std::array<int64_t, 2> strides = {1, 1};
  if (sizes.size() == 2) strides[0] = sizes.begin()[1];
  AtenTensorHandle tensor = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      sizes.size(), sizes.begin(), strides.data(), dtype, aoti_torch_device_type_cpu(), 0,
      &tensor));
  return OwnedTensor(tensor);
}

// What a call begins with: a copy of the policy table and the state before the first exit, which is
// score, prediction, exit_layer, logits, running. One op for all six, because after a model has
// run, its code is in the caches and each first call of another function costs microseconds.
void begin_call(StableIValue* stack, uint64_t, uint64_t) {
  const Argument table = Argument::required("table", stack[2]);
  const int64_t samples = expect_in("samples", to<int64_t>(stack[0]), 0, kLargest);
  const int64_t classes = expect_in("classes", to<int64_t>(stack[1]), 1, kLargest);
  if (table.dim() != 2) fail("table must be [exits, 3]; got ", table.text());
  const int64_t exits = table.size(0);
  const int32_t float32 = aoti_torch_dtype_float32(), int32 = aoti_torch_dtype_int32();
  table.expect<2>(float32, {exits, 3});
  std::array<OwnedTensor, 6> made = {
      empty({exits, 3}, float32),          empty({samples}, float32),
      empty({samples}, int32),             empty({samples}, int32),
      empty({samples, classes}, float32),  empty({exits}, aoti_torch_dtype_bool())};
  const std::array<int64_t, 6> bytes = {12 * exits,  4 * samples,           4 * samples,
                                        4 * samples, 4 * samples * classes, exits};
  for (size_t i = 0; i < made.size(); ++i) {
    void* data = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(made[i].get(), &data));
    if (i == 0) {
      std::memcpy(data, table.data<float>(), bytes[i]);
    } else if (bytes[i]) {
      std::memset(data, i == 2 ? 0xFF : 0, bytes[i]);  // all bits of prediction -1 are set
    }
    stack[i] = torch::stable::detail::from(made[i].release());
  }
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* kernels : supported_kernels()) names.emplace_back(kernels->name);
  return names;
}

}  // namespace
}  // namespace eefast::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(eefast, m) {
  m.def(
      "begin_call(int samples, int classes, Tensor table)"
      " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  // For tests and benchmarks. The first lists the instruction sets that run here, the best first;
  // the second makes all later calls use one of them and returns the one used before.
  m.def("cpp_instruction_sets() -> str[]");
  m.def("cpp_use_instruction_set(str name) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CPU, m) {
  // Schema and fake are defined in Python, once for all implementations.
  m.impl("exit_step.cpp", &eefast::cpu::exit_step);
  m.impl("similarity_step.cpp", &eefast::cpu::similarity_step);
  m.impl("begin_call", &eefast::cpu::begin_call);
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CompositeExplicitAutograd, m) {
  m.impl("cpp_instruction_sets", TORCH_BOX(&eefast::cpu::instruction_sets));
  m.impl("cpp_use_instruction_set", TORCH_BOX(&eefast::cpu::use_kernels));
}
