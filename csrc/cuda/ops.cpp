// The torch op of the CUDA implementation, on the stable ABI.

#include <cuda_runtime.h>
#include <torch/csrc/stable/tensor.h>

#include <array>

#include "../arguments.h"
#include "exit_step.h"

// Weak, because a torch built for the CPU lacks it, and the rest of eefast must still load there.
extern "C" __attribute__((weak)) AOTITorchError
aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);

namespace eefast::cuda {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) fail(cudaGetErrorString(error));
}

// Makes a device the current one while it exists.
class OnDevice {
 public:
  explicit OnDevice(int device) : device_(device) {
    check(cudaGetDevice(&before_));
    if (before_ != device_) check(cudaSetDevice(device_));
  }
  ~OnDevice() {
    if (before_ != device_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int device_;
  int before_ = 0;
};

cudaStream_t current_stream(int32_t device) {
  if (!aoti_torch_get_current_cuda_stream) fail("this torch is built without CUDA");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

// From torch's allocator, so that the memory belongs to the graph that is being captured, if any.
OwnedTensor allocate(int64_t floats, int32_t device) {
  const std::array<int64_t, 1> sizes = {floats}, strides = {1};
  AtenTensorHandle tensor = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      1, sizes.data(), strides.data(), aoti_torch_dtype_float32(), aoti_torch_device_type_cuda(),
      device, &tensor));
  return OwnedTensor(tensor);
}

Dtype dtype_of(const Argument& tensor) {
  if (tensor.dtype() == aoti_torch_dtype_float16()) return Dtype::kFloat16;
  if (tensor.dtype() == aoti_torch_dtype_bfloat16()) return Dtype::kBFloat16;
  return Dtype::kFloat32;
}

// Boxed by hand, for the sake of Argument. All checks come before the first write; that `rows` and
// `offsets`, which are on the device, hold what they should is the caller's promise.
void exit_step(StableIValue* stack, uint64_t, uint64_t) {
  const Tensors on(stack);
  const Call call = checked(
      on,
      {aoti_torch_dtype_float32(), aoti_torch_dtype_float16(), aoti_torch_dtype_bfloat16()},
      "Float, Half or BFloat16");
  if (call.rows > kMaxRows) {
    fail(
        "impl='cuda' takes up to ", kMaxRows, " rows, got ", call.rows,
        "; impl='triton' takes any number");
  }
  if (!on.control.given()) {
    fail("impl='cuda' needs control of Long [", call.exits, ", 2], zeros at first; got None");
  }
  for (const Argument* tensor :
       {&on.offsets, &on.pooler_weight, &on.pooler_bias, &on.weight, &on.bias, &on.cascade,
        &on.scorer, &on.table, &on.rows, &on.score, &on.prediction, &on.exit_layer, &on.logits,
        &on.running, &on.votes, &on.memory, &on.control}) {
    tensor->expect_with(on.hidden);
  }

  ExitStep step{};
  step.dtype = dtype_of(on.hidden);
  step.hidden = on.hidden.data<void>();
  step.row_stride = on.hidden.stride(0);
  step.rows = static_cast<int32_t>(call.rows);
  step.offsets = on.offsets.data<int64_t>();
  step.samples = on.rows.data<int64_t>();
  step.pooler = {
      on.pooler_weight.data<void>(), on.pooler_bias.data<void>(), call.width, call.width};
  step.head = {on.weight.data<void>(), on.bias.data<void>(), call.width, call.outputs()};
  step.classes = call.classes;
  step.cascade = on.cascade.data<float>();
  step.keep = call.keep;
  step.gain = call.gain;
  step.accumulate = call.accumulate;
  step.scorer = call.scorer;
  step.strict = call.strict;
  step.last_exit = call.last_exit();
  step.network = on.scorer.data<float>();
  step.units = on.scorer.given() ? on.scorer.size(0) : 0;
  step.table = on.table.data<float>();
  step.exit = call.exit;
  step.layer = call.layer;
  step.score = on.score.mutable_data<float>();
  step.prediction = on.prediction.mutable_data<int32_t>();
  step.exit_layer = on.exit_layer.mutable_data<int32_t>();
  step.logits = on.logits.mutable_data<float>();
  step.running = on.running.mutable_data<bool>() + (call.exit - 1);
  step.votes = on.votes.mutable_data<float>();
  step.memory = on.memory.mutable_data<float>();
  step.memories = on.memory.given() ? on.memory.size(1) : 0;
  step.control = on.control.mutable_data<int64_t>() + 2 * (call.exit - 1);

  const int32_t device = on.hidden.device().second;
  const OnDevice guard(device);
  const OwnedTensor scratch = allocate(scratch_floats(step), device);
  void* memory = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(scratch.get(), &memory));
  step.scratch = static_cast<float*>(memory);
  launch(step, current_stream(device));
}

// For exit steps that do not set the condition of an IF node themselves.
void set_conditional_from(const torch::stable::Tensor& flag, int64_t handle) {
  if (flag.scalar_type() != torch::headeronly::ScalarType::Bool || flag.numel() != 1) {
    throw std::runtime_error("set_conditional: flag must be one bool");
  }
  const int32_t device = flag.get_device_index();
  const OnDevice guard(device);
  set_conditional(
      static_cast<const bool*>(flag.const_data_ptr()), static_cast<uint64_t>(handle),
      current_stream(device));
}

}  // namespace
}  // namespace eefast::cuda

STABLE_TORCH_LIBRARY_FRAGMENT(eefast, m) {
  // Whether the kernel was built for the current device.
  m.def("cuda_runs_here() -> bool");
  m.def("set_conditional(Tensor flag, int handle) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CompositeExplicitAutograd, m) {
  m.impl("cuda_runs_here", TORCH_BOX(&eefast::cuda::runs_on_current_device));
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CUDA, m) {
  // Schema and fake are defined in Python, once for all implementations.
  m.impl("exit_step.cuda", &eefast::cuda::exit_step);
  m.impl("set_conditional", TORCH_BOX(&eefast::cuda::set_conditional_from));
}
