// The torch ops of packed blocks, on the stable ABI.

#include <torch/csrc/stable/library.h>

#include <array>
#include <cstring>
#include <vector>

#include "block.h"
#include "buffers.h"

namespace eefast::cpu {
namespace {

constexpr char kMagic[] = "eeblock1";

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

// 1 or all of the samples.
int64_t one_or(const Tensor& tensor, int64_t samples) {
  return tensor.dim() > 0 && tensor.size(0) == 1 ? 1 : samples;
}

void expect_shape(const char* name, const PackedLinear& layer, int64_t outputs, int64_t inputs) {
  if (layer.outputs != outputs || layer.inputs != inputs) {
    fail(name, " must have ", outputs, " outputs and ", inputs, " inputs; got ", layer.outputs,
         " and ", layer.inputs);
  }
}

void expect_shapes(const Block& block) {
  const BlockHeader& header = *block.header;
  expect_in("heads", header.heads, 1, 1 << 15);
  expect_in("head_width", header.head_width, 1, 1 << 15);
  if (header.rotary >= 0 && header.head_width % 2 != 0) {
    fail("head_width must be even to be rotated, got ", header.head_width);
  }
  const int64_t all = header.heads * header.head_width, inner = block.inner();
  expect_shape("qkv", block.qkv, 3 * all, header.width);
  expect_shape("output", block.output, header.width, all);
  expect_shape("up", block.up, header.gated ? 2 * inner : inner, header.width);
  expect_shape("down", block.down, header.width, inner);
  for (const PackedLinear* layer : {&block.output, &block.up, &block.down}) {
    if (layer->packing != block.qkv.packing) fail("linear layers must be packed in one dtype");
  }
}

int64_t front_of(int64_t width) {
  return static_cast<int64_t>(sizeof(BlockHeader)) + (16 * width + 63) / 64 * 64;
}

Block block_in(const Tensor& packed) {
  const Bytes bytes = bytes_of("blocks", packed, "pack_block");
  const auto* header = reinterpret_cast<const BlockHeader*>(bytes.data);
  const auto room = static_cast<int64_t>(sizeof(BlockHeader));
  if (bytes.count < room || std::memcmp(header->magic, kMagic, 8) != 0) {
    fail("blocks must be what pack_block returned");
  }
  const bool sane = header->bytes == bytes.count && header->width >= 1 &&
      header->width <= kLargest && front_of(header->width) <= bytes.count;
  if (!sane) fail("blocks: one is damaged: its header does not fit its ", bytes.count, " bytes");
  Block block{header, reinterpret_cast<const float*>(bytes.data + room), {}, {}, {}, {}};
  int64_t at = front_of(header->width);
  for (PackedLinear* layer : {&block.qkv, &block.output, &block.up, &block.down}) {
    *layer = linear_in("blocks", {bytes.data + at, bytes.count - at});
    at += layer->bytes();
  }
  expect_shapes(block);
  return block;
}

Tensor pack_block(
    const Tensor& qkv, const Tensor& output, const Tensor& up, const Tensor& down,
    const Tensor& norms, double attention_eps, double feed_forward_eps, std::string activation,
    bool gated, bool pre_norm, int64_t heads, int64_t head_width, double scale, int64_t window,
    int64_t rotary) {
  const std::array<Bytes, 4> bytes = {
      bytes_of("qkv", qkv), bytes_of("output", output), bytes_of("up", up), bytes_of("down", down)};
  BlockHeader header{};
  const Block block{
      &header, nullptr, linear_in("qkv", bytes[0]), linear_in("output", bytes[1]),
      linear_in("up", bytes[2]), linear_in("down", bytes[3])};
  std::memcpy(header.magic, kMagic, 8);
  header.width = block.qkv.inputs;
  header.heads = heads;
  header.head_width = head_width;
  header.window = window;
  header.rotary = rotary;
  header.scale = static_cast<float>(scale);
  header.attention_eps = static_cast<float>(attention_eps);
  header.feed_forward_eps = static_cast<float>(feed_forward_eps);
  header.activation = activation_of(activation);
  header.gated = gated;
  header.pre_norm = pre_norm;
  expect_shapes(block);
  const float* numbers = floats_of<2>("norms", norms, {4, header.width});
  const int64_t front = front_of(header.width);
  header.bytes = front;
  for (const Bytes& part : bytes) header.bytes += part.count;
  Tensor buffer = buffer_of(header.bytes);
  auto* at = static_cast<std::byte*>(buffer.mutable_data_ptr());
  std::memset(at, 0, front);
  std::memcpy(at, &header, sizeof header);
  std::memcpy(at + sizeof header, numbers, 16 * header.width);
  at += front;
  for (const Bytes& part : bytes) {
    std::memcpy(at, part.data, part.count);
    at += part.count;
  }
  return buffer;
}

bool alike(const Block& a, const Block& b) {
  return a.header->width == b.header->width && a.header->heads == b.header->heads &&
      a.header->head_width == b.header->head_width && a.header->gated == b.header->gated &&
      a.inner() == b.inner() && a.qkv.packing == b.qkv.packing;
}

Tensor packed_blocks(
    const Tensor& x, std::vector<Tensor> blocks, std::optional<Tensor> mask,
    std::optional<Tensor> bias, std::vector<Tensor> tables, double outside) {
  if (blocks.empty()) fail("blocks must be at least one");
  std::vector<Block> packed;
  for (const Tensor& block : blocks) {
    packed.push_back(block_in(block));
    if (!alike(packed.front(), packed.back())) fail("blocks must have one dtype and the same shapes");
  }
  const BlockHeader& header = *packed.front().header;
  if (x.dim() != 3) fail("x must be [samples, tokens, ", header.width, "]; got ", x.dim(), " dimensions");
  Operands operands{x.size(0), x.size(1), nullptr, 0, nullptr, nullptr, static_cast<float>(outside)};
  const int64_t samples = operands.samples, tokens = operands.tokens;
  const float* from = floats_of<3>("x", x, {samples, tokens, header.width});
  if (mask) {
    const int64_t rows = one_or(*mask, samples);
    operands.mask = floats_of<2>("mask", *mask, {rows, tokens});
    operands.mask_stride = rows == 1 ? 0 : tokens;
  }
  if (bias) operands.bias = floats_of<3>("bias", *bias, {header.heads, tokens, tokens});
  std::vector<Operands::Tables> rotary;
  for (size_t i = 0; i + 1 < tables.size(); i += 2) {
    const int64_t rows = one_or(tables[i], samples), width = header.head_width;
    rotary.push_back({
        floats_of<3>("tables", tables[i], {rows, tokens, width}),
        floats_of<3>("tables", tables[i + 1], {rows, tokens, width}),
        rows == 1 ? 0 : tokens * width,
    });
  }
  operands.rotary = rotary.data();
  for (const Block& block : packed) {
    if (block.header->rotary >= static_cast<int64_t>(rotary.size())) {
      fail("tables: a block reads pair ", block.header->rotary, " of them; got ", rotary.size());
    }
  }
  Tensor out = torch::stable::new_empty(x, {samples, tokens, header.width});
  if (samples > 0 && tokens > 0) {
    run_blocks(
        packed.data(), static_cast<int64_t>(packed.size()), operands, from,
        out.mutable_data_ptr<float>());
  }
  return out;
}

}  // namespace
}  // namespace eefast::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(eefast, m) {
  // One buffer of four packed linear layers, norms f32 [4, D] (weight and bias of the attention's,
  // then of the feed-forward's; an eps below 0: no norm), and what else block.h's header has.
  m.def(
      "pack_block(Tensor qkv, Tensor output, Tensor up, Tensor down, Tensor norms,"
      " float attention_eps, float feed_forward_eps, str activation, bool gated, bool pre_norm,"
      " int heads, int head_width, float scale, int window, int rotary) -> Tensor");
  // x f32 [B, T, D] after some blocks; mask f32 [B or 1, T], bias f32 [H, T, T], tables are pairs of
  // cosines and sines f32 [B or 1, T, E].
  m.def(
      "packed_blocks(Tensor x, Tensor[] blocks, Tensor? mask, Tensor? bias, Tensor[] tables,"
      " float outside) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CPU, m) {
  m.impl("pack_block", TORCH_BOX(&eefast::cpu::pack_block));
  m.impl("packed_blocks", TORCH_BOX(&eefast::cpu::packed_blocks));
}
