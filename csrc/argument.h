// One argument of an op, and the checks of it.

#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace eefast {

using torch::stable::detail::to;

// Not STD_TORCH_CHECK: its message begins with the path that this file had when it was built.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  message << "eefast: ";
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

struct DeleteTensor {
  void operator()(AtenTensorOpaque* tensor) const { aoti_torch_delete_tensor_object(tensor); }
};
using OwnedTensor = std::unique_ptr<AtenTensorOpaque, DeleteTensor>;

// A tensor of the call, or none, and the checks of it.
//
// torch::stable::Tensor would do, for 0.3 us more per call: it allocates a shared owner for each.
// All tensors are dense: the dispatcher would have gone elsewhere for any other.
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

  // Type and index.
  std::pair<int32_t, int32_t> device() const {
    std::pair<int32_t, int32_t> device;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor_.get(), &device.first));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor_.get(), &device.second));
    return device;
  }

  void expect_with(const Argument& other) const {
    if (given() && device() != other.device()) {
      fail(name_, " must be on the same device as ", other.name_);
    }
  }

  // Null where there is no tensor.
  template <class Element>
  const Element* data() const {
    const void* data = nullptr;
    if (given()) TORCH_ERROR_CODE_CHECK(torch_get_const_data_ptr(tensor_.get(), &data));
    return static_cast<const Element*>(data);
  }

  template <class Element>
  Element* mutable_data() const {
    void* data = nullptr;
    if (given()) TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(tensor_.get(), &data));
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

inline constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();

inline int64_t expect_in(const char* name, int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most) {
    fail(name, " must be in ", least, "..", most, ", got ", value);
  }
  return value;
}

// The elements of a tensor of indices on the CPU, each in 0..size-1; null where there is no tensor.
inline const int64_t* checked_elements(const Argument& indices, const char* name, int64_t size) {
  const int64_t* elements = indices.data<int64_t>();
  for (int64_t i = 0; elements && i < indices.size(0); ++i) {
    expect_in(name, elements[i], 0, size - 1);
  }
  return elements;
}

}  // namespace eefast
