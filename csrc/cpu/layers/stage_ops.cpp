// The torch ops that run packed blocks, alone or with the exits between them, on the stable ABI.

#include <torch/csrc/stable/library.h>

#include <array>
#include <tuple>
#include <vector>

#include "../ops.h"
#include "buffers.h"

namespace eefast::cpu {
namespace {

using torch::stable::detail::from;

// 1 or all of the samples.
int64_t one_or(const Tensor& tensor, int64_t samples) {
  return tensor.dim() > 0 && tensor.size(0) == 1 ? 1 : samples;
}

bool alike(const Block& a, const Block& b) {
  return a.header->width == b.header->width && a.header->heads == b.header->heads &&
      a.header->head_width == b.header->head_width && a.header->gated == b.header->gated &&
      a.inner() == b.inner() && a.qkv.packing == b.qkv.packing;
}

// Blocks and what they share, checked.
struct Blocks {
  Blocks(
      const Tensor& x, const std::vector<Tensor>& packed, const std::optional<Tensor>& mask,
      const std::optional<Tensor>& bias, const std::vector<Tensor>& tables, double outside) {
    if (packed.empty()) fail("blocks must be at least one");
    for (const Tensor& block : packed) {
      all.push_back(block_in(block));
      if (!alike(all.front(), all.back())) fail("blocks must have one dtype and the same shapes");
    }
    const BlockHeader& header = *all.front().header;
    if (x.dim() != 3) {
      fail("x must be [samples, tokens, ", header.width, "]; got ", x.dim(), " dimensions");
    }
    const int64_t samples = x.size(0), tokens = x.size(1);
    input = floats_of<3>("x", x, {samples, tokens, header.width});
    operands = {samples, tokens, nullptr, 0, nullptr, nullptr, static_cast<float>(outside)};
    if (mask) {
      const int64_t rows = one_or(*mask, samples);
      operands.mask = floats_of<2>("mask", *mask, {rows, tokens});
      operands.mask_stride = rows == 1 ? 0 : tokens;
    }
    if (bias) operands.bias = floats_of<3>("bias", *bias, {header.heads, tokens, tokens});
    for (size_t i = 0; i + 1 < tables.size(); i += 2) {
      const int64_t rows = one_or(tables[i], samples), width = header.head_width;
      rotary.push_back({
          floats_of<3>("tables", tables[i], {rows, tokens, width}),
          floats_of<3>("tables", tables[i + 1], {rows, tokens, width}),
          rows == 1 ? 0 : tokens * width,
      });
    }
    operands.rotary = rotary.data();
    for (const Block& block : all) {
      if (block.header->rotary >= static_cast<int64_t>(rotary.size())) {
        fail("tables: a block reads pair ", block.header->rotary, " of them; got ", rotary.size());
      }
    }
  }

  int64_t count() const { return static_cast<int64_t>(all.size()); }

  std::vector<Block> all;
  const float* input;
  Operands operands;
  std::vector<Operands::Tables> rotary;
};

Tensor packed_blocks(
    const Tensor& x, std::vector<Tensor> blocks, std::optional<Tensor> mask,
    std::optional<Tensor> bias, std::vector<Tensor> tables, double outside) {
  const Blocks given(x, blocks, mask, bias, tables, outside);
  Tensor out = torch::stable::empty_like(x);
  if (x.numel() > 0) {
    BlockRunner(given.all.front(), given.operands)
        .run(given.all.data(), given.count(), nullptr, given.input, out.mutable_data_ptr<float>());
  }
  return out;
}

// The heads of the exits of some stages, each of which has some of the parts that exit_step takes.
class Heads {
 public:
  enum Part { kPoolerWeight, kPoolerBias, kWeight, kBias, kCascade, kScorer, kParts };

  Heads(const std::vector<Tensor>& parts, const std::vector<int64_t>& given) {
    size_t next = 0;
    for (const int64_t bits : given) {
      auto& head = heads_.emplace_back();
      for (int part = 0; part < kParts; ++part) {
        if (!(bits >> part & 1)) continue;
        if (next == parts.size()) fail("heads has fewer tensors than given says, ", parts.size());
        head[part] = parts[next++];
      }
      if (!head[kWeight]) fail("given: an exit has no weight");
    }
    if (next != parts.size()) fail("heads has ", parts.size(), " tensors; given says ", next);
  }

  const std::array<std::optional<Tensor>, kParts>& operator[](size_t stage) const {
    return heads_[stage];
  }

 private:
  std::vector<std::array<std::optional<Tensor>, kParts>> heads_;
};

// What the exits of a call share.
struct Exits {
  const Tensor& table;
  const std::optional<Tensor>& rows;
  const Tensor &score, &prediction, &exit_layer, &logits, &running;
  const std::optional<Tensor>&votes, &memory;

  // Takes the rows past an exit. Whether all of them go on.
  bool pass(
      const Tensor& hidden, const std::array<std::optional<Tensor>, Heads::kParts>& head,
      int64_t step) const {
    const std::optional<Tensor> none;
    std::array<StableIValue, 19> arguments = {
        from(hidden), from(none), from(head[Heads::kPoolerWeight]), from(head[Heads::kPoolerBias]),
        from(*head[Heads::kWeight]), from(head[Heads::kBias]), from(head[Heads::kCascade]),
        from(head[Heads::kScorer]), from(table), from(rows), from(step), from(score),
        from(prediction), from(exit_layer), from(logits), from(running), from(votes), from(memory),
        from(none)};
    exit_step(arguments.data(), arguments.size(), 0);  // which checks them all
    const auto layer = static_cast<int32_t>(step >> 16 & 0xFFFF);
    const int32_t* layers = exit_layer.const_data_ptr<int32_t>();
    const int64_t* samples = rows ? rows->const_data_ptr<int64_t>() : nullptr;
    for (int64_t row = 0; row < hidden.size(0); ++row) {
      if (layers[samples ? samples[row] : row] == layer) return false;
    }
    return running.const_data_ptr<bool>()[(step & 0xFFFF) - 1];
  }
};

std::tuple<Tensor, int64_t> packed_stages(
    const Tensor& x, std::vector<Tensor> blocks, std::vector<int64_t> counts,
    std::optional<Tensor> mask, std::optional<Tensor> bias, std::vector<Tensor> tables,
    double outside, std::vector<Tensor> heads, std::vector<int64_t> given,
    std::vector<int64_t> steps, const Tensor& table, std::optional<Tensor> rows,
    const Tensor& score, const Tensor& prediction, const Tensor& exit_layer, const Tensor& logits,
    const Tensor& running, std::optional<Tensor> votes, std::optional<Tensor> memory) {
  const Blocks all(x, blocks, mask, bias, tables, outside);
  const Heads head_of(heads, given);
  int64_t total = 0;
  for (const int64_t count : counts) total += expect_in("counts", count, 1, all.count());
  if (total != all.count()) fail("counts must add up to ", all.count(), " blocks; got ", total);
  if (steps.size() != counts.size() || given.size() != counts.size()) {
    fail("steps and given must have an element for each of ", counts.size(), " stages; got ",
         steps.size(), " and ", given.size());
  }
  if (x.numel() == 0) fail("x must have at least one sample and one token");

  const Exits exits{table, rows, score, prediction, exit_layer, logits, running, votes, memory};
  Tensor out = torch::stable::empty_like(x);
  float* hidden = out.mutable_data_ptr<float>();
  BlockRunner runner(all.all.front(), all.operands);
  const Block* block = all.all.data();
  const Block* const end = block + all.count();
  const float* before = all.input;
  size_t stage = 0;
  for (bool all_go_on = true; all_go_on && block < end; ++stage) {
    const Block* next = block + counts[stage];
    runner.run(block, counts[stage], next < end ? next : nullptr, before, hidden);
    all_go_on = exits.pass(out, head_of[stage], steps[stage]);
    block = next;
    before = hidden;
  }
  return {out, static_cast<int64_t>(stage)};
}

}  // namespace
}  // namespace eefast::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(eefast, m) {
  // x f32 [B, T, D] after some blocks; mask f32 [B or 1, T], bias f32 [H, T, T], tables are pairs of
  // cosines and sines f32 [B or 1, T, E].
  m.def(
      "packed_blocks(Tensor x, Tensor[] blocks, Tensor? mask, Tensor? bias, Tensor[] tables,"
      " float outside) -> Tensor");
  // Stage by stage: counts[i] of the blocks, and the exit step steps[i] on the first token of each
  // row, until a row exits or no stage is left. The hidden states then, and how many stages ran.
  // heads are the tensors of the exits, one exit after the other; bit j of given[i] says whether
  // exit i has part j of pooler_weight, pooler_bias, weight, bias, cascade, scorer. The rest is
  // exit_step's.
  m.def(
      "packed_stages(Tensor x, Tensor[] blocks, int[] counts, Tensor? mask, Tensor? bias,"
      " Tensor[] tables, float outside, Tensor[] heads, int[] given, int[] steps, Tensor table,"
      " Tensor? rows, Tensor(a!) score, Tensor(b!) prediction, Tensor(c!) exit_layer,"
      " Tensor(d!) logits, Tensor(e!) running, Tensor(f!)? votes, Tensor(g!)? memory)"
      " -> (Tensor, int)");
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CPU, m) {
  m.impl("packed_blocks", TORCH_BOX(&eefast::cpu::packed_blocks));
  m.impl("packed_stages", TORCH_BOX(&eefast::cpu::packed_stages));
}
