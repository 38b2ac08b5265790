// The torch ops of the CPU implementation, on the stable ABI.

#include <torch/csrc/stable/library.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "exit_step.h"
#include "instruction_set.h"

namespace eefast::cpu {
namespace {

using torch::stable::detail::to;

// Rather than STD_TORCH_CHECK, whose message begins with the path of this file where it was built.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  message << "exit_step: ";
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

struct DeleteTensor {
  void operator()(AtenTensorOpaque* tensor) const { aoti_torch_delete_tensor_object(tensor); }
};
using OwnedTensor = std::unique_ptr<AtenTensorOpaque, DeleteTensor>;

// A tensor of the call, or none, and what is asked of it.
//
// torch::stable::Tensor would do, for 0.3 us more per call: it allocates a shared owner for each.
// All tensors are dense and on the CPU: the dispatcher would have gone elsewhere for any other.
class Argument {
 public:
  Argument(const char* name, AtenTensorHandle tensor) : name_(name), tensor_(tensor) {
    if (!tensor) return;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor, &dtype_));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(tensor, &dim_));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor, &sizes_));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(tensor, &strides_));
  }

  static Argument required(const char* name, StableIValue value) {
    return Argument(name, to<AtenTensorHandle>(value));
  }

  static Argument optional(const char* name, StableIValue value) {
    return Argument(name, to<std::optional<AtenTensorHandle>>(value).value_or(nullptr));
  }

  bool given() const { return tensor_ != nullptr; }
  int32_t dtype() const { return dtype_; }
  int64_t dim() const { return dim_; }
  int64_t size(int64_t axis) const { return sizes_[axis]; }
  int64_t stride(int64_t axis) const { return strides_[axis]; }

  template <size_t kDim>
  void expect(int32_t dtype, const std::array<int64_t, kDim>& shape) const {
    bool fits = dtype_ == dtype && dim_ == static_cast<int64_t>(kDim);
    for (size_t axis = 0; fits && axis < kDim; ++axis) fits = sizes_[axis] == shape[axis];
    bool contiguous = false;
    TORCH_ERROR_CODE_CHECK(aoti_torch_is_contiguous(tensor_.get(), &contiguous));
    if (!fits || !contiguous) {
      fail(
          name_, " must be ", text(dtype, shape.data(), kDim), ", contiguous; got ", text(),
          contiguous ? "" : ", not contiguous");
    }
  }

  template <class Element>
  const Element* data() const {
    const void* data = nullptr;
    if (given()) TORCH_ERROR_CODE_CHECK(torch_get_const_data_ptr(tensor_.get(), &data));
    return static_cast<const Element*>(data);
  }

  template <class Element>
  Element* mutable_data() const {
    void* data = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(tensor_.get(), &data));
    return static_cast<Element*>(data);
  }

  std::string text() const { return text(dtype_, sizes_, dim_); }

 private:
  static std::string text(int32_t dtype, const int64_t* sizes, int64_t dim) {
    const auto type = to<torch::headeronly::ScalarType>(torch::stable::detail::from(dtype));
    std::string text = std::string(torch::headeronly::toString(type)) + " [";
    for (int64_t axis = 0; axis < dim; ++axis) {
      text += (axis ? ", " : "") + std::to_string(sizes[axis]);
    }
    return text + "]";
  }

  const char* name_;
  OwnedTensor tensor_;
  int32_t dtype_ = 0;
  int64_t dim_ = 0;
  int64_t* sizes_ = nullptr;  // borrowed from the tensor
  int64_t* strides_ = nullptr;
};

constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();

int64_t expect_in(const char* name, int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most) {
    fail(name, " must be in ", least, "..", most, ", got ", value);
  }
  return value;
}

// Boxed by hand, for the sake of Argument. All checks come before the first write.
void exit_step(StableIValue* stack, uint64_t, uint64_t) {
  // Every tensor finds its owner before anything can throw.
  const Argument hidden = Argument::required("hidden", stack[0]);
  const Argument positions = Argument::optional("positions", stack[1]);
  const Argument pooler_weight = Argument::optional("pooler_weight", stack[2]);
  const Argument pooler_bias = Argument::optional("pooler_bias", stack[3]);
  const Argument weight = Argument::required("weight", stack[4]);
  const Argument bias = Argument::optional("bias", stack[5]);
  const Argument table = Argument::required("table", stack[6]);
  const Argument rows = Argument::optional("rows", stack[7]);
  const Argument score = Argument::required("score", stack[9]);
  const Argument prediction = Argument::required("prediction", stack[10]);
  const Argument exit_layer = Argument::required("exit_layer", stack[11]);
  const Argument logits = Argument::optional("logits", stack[12]);
  const Argument running = Argument::required("running", stack[13]);
  const Argument control = Argument::optional("control", stack[14]);  // a GPU's affair

  const int32_t float32 = aoti_torch_dtype_float32(), int32 = aoti_torch_dtype_int32();
  const int32_t dtype = hidden.dtype();
  const bool is_bfloat16 = dtype == aoti_torch_dtype_bfloat16();
  if (!is_bfloat16 && dtype != float32) {
    fail("hidden must be Float or BFloat16; got ", hidden.text());
  }
  const int64_t dim = hidden.dim();
  if (dim != 2 && dim != 3) {
    fail("hidden must be [rows, width] or [rows, tokens, width]; got ", hidden.text());
  }
  const int64_t count = hidden.size(0), width = hidden.size(dim - 1);
  const int64_t tokens = dim == 3 ? hidden.size(1) : 1;
  if (hidden.stride(dim - 1) != 1 && width > 1 && count > 0) {
    fail(
        "the elements of a row of hidden must be adjacent; got a stride of ",
        hidden.stride(dim - 1));
  }
  if (tokens < 1) fail("hidden must have at least one token; got ", hidden.text());

  if (weight.dim() != 2 || weight.size(0) < 1) {
    fail("weight must be [classes, width] with at least one class; got ", weight.text());
  }
  const int64_t classes = weight.size(0);
  weight.expect<2>(dtype, {classes, width});
  if (bias.given()) bias.expect<1>(dtype, {classes});
  if (pooler_weight.given()) pooler_weight.expect<2>(dtype, {width, width});
  if (pooler_bias.given()) {
    if (!pooler_weight.given()) fail("pooler_bias needs pooler_weight; got None for it");
    pooler_bias.expect<1>(dtype, {width});
  }

  if (table.dim() != 2 || table.size(0) < 1) fail("table must be [exits, 3]; got ", table.text());
  const int64_t exits = table.size(0);
  table.expect<2>(float32, {exits, 3});
  // The bits of eefast/ops/step.py.
  const int64_t step = to<int64_t>(stack[8]);
  const int64_t exit = expect_in("exit", step & 0xFFFF, 1, exits);
  const int64_t layer = expect_in("layer", step >> 16 & 0xFFFF, 1, 0xFFFF);
  const int64_t keep = expect_in("keep", step >> 32 & 0xFF, 0, kKeepKinds - 1);
  const int64_t gain = expect_in("gain", step >> 40 & 0xFF, 0, kGainKinds - 1);
  const bool strict = step >> 48 & 1;

  if (score.dim() != 1) fail("score must be [samples]; got ", score.text());
  const int64_t samples = score.size(0);
  score.expect<1>(float32, {samples});
  prediction.expect<1>(int32, {samples});
  exit_layer.expect<1>(int32, {samples});
  if (logits.given()) logits.expect<2>(float32, {samples, classes});
  running.expect<1>(aoti_torch_dtype_bool(), {exits});
  const int64_t* sample_of_row = rows.data<int64_t>();
  if (rows.given()) {
    rows.expect<1>(aoti_torch_dtype_int64(), {count});
    for (int64_t row = 0; row < count; ++row) {
      expect_in("rows", sample_of_row[row], 0, samples - 1);
    }
  } else if (count != samples) {
    fail("hidden has ", count, " rows for ", samples, " samples: rows must tell whose they are");
  }

  const int64_t* position_of_sample = positions.data<int64_t>();
  if (positions.given()) {
    if (dim != 3) fail("positions need hidden of [rows, tokens, width]; got ", hidden.text());
    positions.expect<1>(aoti_torch_dtype_int64(), {samples});
    for (int64_t sample = 0; sample < samples; ++sample) {
      expect_in("positions", position_of_sample[sample], 0, tokens - 1);
    }
  }

  const int64_t element = is_bfloat16 ? 2 : 4;
  const Dtype layer_dtype = is_bfloat16 ? Dtype::kBFloat16 : Dtype::kFloat32;
  const Linear pooler{
      layer_dtype, pooler_weight.data<void>(), pooler_bias.data<void>(), width, width};
  const float* row_of_table = table.data<float>() + 3 * (exit - 1);
  run({
      hidden.data<std::byte>(),
      hidden.stride(0) * element,
      count,
      sample_of_row,
      position_of_sample,
      dim == 3 ? hidden.stride(1) * element : 0,
      pooler_weight.given() ? &pooler : nullptr,
      {layer_dtype, weight.data<void>(), bias.data<void>(), width, classes},
      {static_cast<Keep>(keep), static_cast<Gain>(gain), strict, exit == exits,
       row_of_table[0], row_of_table[1], row_of_table[2]},
      static_cast<int32_t>(layer),
      score.mutable_data<float>(),
      prediction.mutable_data<int32_t>(),
      exit_layer.mutable_data<int32_t>(),
      logits.given() ? logits.mutable_data<float>() : nullptr,
      running.mutable_data<bool>() + (exit - 1),
  });
}

OwnedTensor empty(std::initializer_list<int64_t> sizes, int32_t dtype) {
  std::array<int64_t, 2> strides = {1, 1};
  if (sizes.size() == 2) strides[0] = sizes.begin()[1];
  AtenTensorHandle tensor = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      sizes.size(), sizes.begin(), strides.data(), dtype, aoti_torch_device_type_cpu(), 0,
      &tensor));
  return OwnedTensor(tensor);
}

// The state before the first exit: score, prediction, exit_layer, logits, running. One op for all
// five, because the first call of anything costs microseconds after a model has had the caches.
void exit_state(StableIValue* stack, uint64_t, uint64_t) {
  const int64_t samples = expect_in("samples", to<int64_t>(stack[0]), 0, kLargest);
  const int64_t classes = expect_in("classes", to<int64_t>(stack[1]), 1, kLargest);
  const int64_t exits = expect_in("exits", to<int64_t>(stack[2]), 1, kLargest);
  const int32_t float32 = aoti_torch_dtype_float32(), int32 = aoti_torch_dtype_int32();
  std::array<OwnedTensor, 5> state = {
      empty({samples}, float32), empty({samples}, int32), empty({samples}, int32),
      empty({samples, classes}, float32), empty({exits}, aoti_torch_dtype_bool())};
  const std::array<int64_t, 5> bytes = {
      4 * samples, 4 * samples, 4 * samples, 4 * samples * classes, exits};
  for (size_t i = 0; i < state.size(); ++i) {
    void* data = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(state[i].get(), &data));
    // Zero, but for the prediction: all bits of -1 are set.
    if (bytes[i]) std::memset(data, i == 1 ? 0xFF : 0, bytes[i]);
    stack[i] = torch::stable::detail::from(state[i].release());
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
      "exit_state(int samples, int classes, int exits) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // For tests and benchmarks. The first lists the instruction sets that run here, the best first;
  // the second makes all later calls use one of them and returns the one used before.
  m.def("cpp_instruction_sets() -> str[]");
  m.def("cpp_use_instruction_set(str name) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CPU, m) {
  // Schema and fake are defined in Python, once for all implementations.
  m.impl("exit_step.cpp", &eefast::cpu::exit_step);
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CompositeExplicitAutograd, m) {
  m.impl("exit_state", &eefast::cpu::exit_state);
  m.impl("cpp_instruction_sets", TORCH_BOX(&eefast::cpu::instruction_sets));
  m.impl("cpp_use_instruction_set", TORCH_BOX(&eefast::cpu::use_kernels));
}
