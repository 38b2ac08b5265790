// The Python side: arrays in, the kernel on copies of them, the state out.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>
#include <list>

#include "device.h"
#include "run.h"

namespace py = pybind11;

namespace {

// An array on the emulated device: in memory that ends where it ends, so that the address sanitiser
// sees any access beyond it, and aligned as the original is.
class DeviceArray {
 public:
  explicit DeviceArray(py::array host) : host_(std::move(host)) {
    const size_t offset = reinterpret_cast<uintptr_t>(host_.data()) % 16;
    const auto size = static_cast<size_t>(host_.nbytes());
    allocation_ = static_cast<char*>(std::malloc(offset + size));
    data_ = allocation_ + offset;
    std::memcpy(data_, host_.data(), size);
  }
  ~DeviceArray() { std::free(allocation_); }
  DeviceArray(const DeviceArray&) = delete;

  void* data() { return data_; }
  void copy_back() {
    std::memcpy(host_.mutable_data(), data_, static_cast<size_t>(host_.nbytes()));
  }

 private:
  py::array host_;
  char* allocation_;
  char* data_;
};

eefast::cuda::Dtype dtype_of(const std::string& name) {
  if (name == "float32") return eefast::cuda::Dtype::kFloat32;
  return name == "float16" ? eefast::cuda::Dtype::kFloat16 : eefast::cuda::Dtype::kBFloat16;
}

// `call` is made by tests/emulation/__init__.py. Returns what was set by cudaGraphSetConditional.
std::vector<std::pair<uint64_t, unsigned>> exit_step(const py::dict& call, uint64_t seed) {
  std::list<DeviceArray> arrays, state;
  const auto copy = [&](const char* name, std::list<DeviceArray>& to) -> void* {
    if (call[name].is_none()) return nullptr;
    return to.emplace_back(call[name].cast<py::array>()).data();
  };
  const auto in = [&](const char* name) { return copy(name, arrays); };
  const auto out = [&](const char* name) { return copy(name, state); };
  const auto number = [&](const char* name) { return call[name].cast<int64_t>(); };

  const int64_t width = number("width");
  eefast::cuda::ExitStep step{};
  step.dtype = dtype_of(call["dtype"].cast<std::string>());
  step.hidden = in("hidden");
  step.row_stride = number("row_stride");
  step.rows = static_cast<int32_t>(number("rows"));
  step.offsets = static_cast<int64_t*>(in("offsets"));
  step.samples = static_cast<int64_t*>(in("samples"));
  step.pooler = {in("pooler_weight"), in("pooler_bias"), width, width};
  step.head = {in("weight"), in("bias"), width, number("outputs")};
  step.classes = number("classes");
  step.cascade = static_cast<float*>(in("cascade"));
  step.keep = static_cast<eefast::Keep>(number("keep"));
  step.gain = static_cast<eefast::Gain>(number("gain"));
  step.accumulate = static_cast<eefast::Accumulate>(number("accumulate"));
  step.scorer = static_cast<eefast::Scorer>(number("scorer_kind"));
  step.strict = number("strict");
  step.last_exit = number("last_exit");
  step.network = static_cast<float*>(in("scorer"));
  step.units = number("units");
  step.table = static_cast<float*>(in("table"));
  step.exit = number("exit");
  step.layer = static_cast<int32_t>(number("layer"));
  step.score = static_cast<float*>(out("score"));
  step.prediction = static_cast<int32_t*>(out("prediction"));
  step.exit_layer = static_cast<int32_t*>(out("exit_layer"));
  step.logits = static_cast<float*>(out("logits"));
  step.running = static_cast<bool*>(out("running"));
  step.votes = static_cast<float*>(out("votes"));
  step.memory = static_cast<float*>(out("memory"));
  step.memories = number("memories");
  step.control = static_cast<int64_t*>(out("control"));
  emulation::run(step, seed);
  for (DeviceArray& array : state) array.copy_back();
  return emulation::conditionals;
}

}  // namespace

PYBIND11_MODULE(emulation, m) { m.def("exit_step", &exit_step); }
