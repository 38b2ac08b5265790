// The torch op that packs a block, on the stable ABI.

#include <torch/csrc/stable/library.h>

#include <array>
#include <cstring>

#include "block.h"
#include "buffers.h"

namespace eefast::cpu {
namespace {

constexpr char kMagic[] = "eeblock1";

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

}  // namespace

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

namespace {

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

}  // namespace
}  // namespace eefast::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(eefast, m) {
  // One buffer of four packed linear layers, norms f32 [4, D] (weight and bias of the attention's,
  // then of the feed-forward's; an eps below 0: no norm), and what else block.h's header has.
  m.def(
      "pack_block(Tensor qkv, Tensor output, Tensor up, Tensor down, Tensor norms,"
      " float attention_eps, float feed_forward_eps, str activation, bool gated, bool pre_norm,"
      " int heads, int head_width, float scale, int window, int rotary) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CPU, m) {
  m.impl("pack_block", TORCH_BOX(&eefast::cpu::pack_block));
}
