// The torch ops that run packed blocks, alone or with the exits between them, on the stable ABI.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <array>
#include <tuple>
#include <vector>

#include "../ops.h"
#include "buffers.h"
#include "ragged.h"

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
      const std::vector<Tensor>& packed, int64_t samples, int64_t tokens,
      const std::optional<Tensor>& mask, const std::optional<Tensor>& bias,
      const std::vector<Tensor>& tables, double outside) {
    if (packed.empty()) fail("blocks must be at least one");
    for (const Tensor& block : packed) {
      all.push_back(block_in(block));
      if (!alike(all.front(), all.back())) fail("blocks must have one dtype and the same shapes");
    }
    operands = {tokens, nullptr, 0, nullptr, nullptr, static_cast<float>(outside)};
    if (mask) {
      const int64_t rows = one_or(*mask, samples);
      operands.mask = floats_of<2>("mask", *mask, {rows, tokens});
      operands.mask_stride = rows == 1 ? 0 : tokens;
    }
    const BlockHeader& header = *all.front().header;
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
  int64_t width() const { return all.front().header->width; }

  std::vector<Block> all;
  Operands operands;
  std::vector<Operands::Tables> rotary;
};

Tensor packed_blocks(
    const Tensor& x, std::vector<Tensor> blocks, std::optional<Tensor> mask,
    std::optional<Tensor> bias, std::vector<Tensor> tables, double outside) {
  if (x.dim() != 3) fail("x must be [samples, tokens, width]; got ", x.dim(), " dimensions");
  const int64_t samples = x.size(0), tokens = x.size(1);
  const Blocks given(blocks, samples, tokens, mask, bias, tables, outside);
  const float* input = floats_of<3>("x", x, {samples, tokens, given.width()});
  Tensor out = torch::stable::empty_like(x);
  if (x.numel() > 0) {
    Samples all{{}, samples * tokens};
    for (int64_t n = 0; n < samples; ++n) all.spans.push_back({n, n * tokens, tokens});
    BlockRunner(given.all.front(), given.operands, all.rows)
        .run(given.all.data(), given.count(), nullptr, all, input, out.mutable_data_ptr<float>());
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
  const Tensor &table, &score, &prediction, &exit_layer, &logits, &running;
  const std::optional<Tensor>&votes, &memory;

  // Takes the samples that still run past an exit.
  void pass(
      const Tensor& vectors, const std::array<std::optional<Tensor>, Heads::kParts>& head,
      int64_t step) const {
    const std::optional<Tensor> none;
    std::array<StableIValue, 19> arguments = {
        from(vectors), from(none), from(head[Heads::kPoolerWeight]), from(head[Heads::kPoolerBias]),
        from(*head[Heads::kWeight]), from(head[Heads::kBias]), from(head[Heads::kCascade]),
        from(head[Heads::kScorer]), from(table), from(none), from(step), from(score),
        from(prediction), from(exit_layer), from(logits), from(running), from(votes), from(memory),
        from(none)};
    exit_step(arguments.data(), arguments.size(), 0);  // which checks them all
  }
};

// Samples [R tokens in all] whose lengths are given, one behind the other.
Samples samples_of(const Tensor& x, const Tensor& lengths, int64_t tokens, int64_t width) {
  if (lengths.dim() != 1 || lengths.scalar_type() != ScalarType::Long || !lengths.is_contiguous() ||
      !lengths.is_cpu()) {
    fail("lengths must be int64 [samples] on the CPU, contiguous; got ",
         torch::headeronly::toString(lengths.scalar_type()), " with ", lengths.dim(),
         " dimensions");
  }
  Samples all{{}, 0};
  const int64_t* length = lengths.const_data_ptr<int64_t>();
  for (int64_t n = 0; n < lengths.numel(); ++n) {
    all.spans.push_back({n, all.rows, expect_in("lengths", length[n], 1, tokens)});
    all.rows += length[n];
  }
  floats_of<2>("x", x, {all.rows, width});
  return all;
}

std::tuple<int64_t, int64_t> packed_stages(
    const Tensor& x, const Tensor& lengths, int64_t tokens, std::vector<Tensor> blocks,
    std::vector<int64_t> counts, std::optional<Tensor> mask, std::optional<Tensor> bias,
    std::vector<Tensor> tables, double outside, bool mean,
    std::optional<Tensor> norm_weight, std::optional<Tensor> norm_bias, double eps,
    std::vector<Tensor> heads, std::vector<int64_t> given, std::vector<int64_t> steps,
    const Tensor& table, const Tensor& score, const Tensor& prediction, const Tensor& exit_layer,
    const Tensor& logits, const Tensor& running, std::optional<Tensor> votes,
    std::optional<Tensor> memory) {
  const int64_t number = lengths.numel();
  const Blocks all(blocks, number, tokens, mask, bias, tables, outside);
  const int64_t width = all.width();
  Samples samples = samples_of(x, lengths, tokens, width);
  const Heads head_of(heads, given);
  int64_t total = 0;
  for (const int64_t count : counts) total += expect_in("counts", count, 1, all.count());
  if (total != all.count()) fail("counts must add up to ", all.count(), " blocks; got ", total);
  if (steps.size() != counts.size() || given.size() != counts.size()) {
    fail("steps and given must have an element for each of ", counts.size(), " stages; got ",
         steps.size(), " and ", given.size());
  }
  if (number == 0) fail("lengths must be of at least one sample");
  if (norm_weight.has_value() != norm_bias.has_value()) {
    fail("norm_weight and norm_bias must be given together");
  }
  const Readout readout(
      all.operands, width, mean,
      norm_weight ? floats_of<1>("norm_weight", *norm_weight, {width}) : nullptr,
      norm_bias ? floats_of<1>("norm_bias", *norm_bias, {width}) : nullptr,
      static_cast<float>(eps));

  const Exits exits{table, score, prediction, exit_layer, logits, running, votes, memory};
  Tensor vectors = torch::stable::new_empty(x, {number, width});
  Tensor out = torch::stable::empty_like(x);
  float* const hidden = out.mutable_data_ptr<float>();
  BlockRunner runner(all.all.front(), all.operands, largest_group(samples));
  const Block* block = all.all.data();
  const Block* const end = block + all.count();
  const float* before = x.const_data_ptr<float>();
  int64_t stage = 0, evictions = 0;
  while (block < end && !samples.spans.empty()) {
    if (evict(samples, width, hidden)) ++evictions;
    const Block* next = block + counts[stage];
    for (const Group& group : groups_of(samples)) {
      const int64_t at = group.first * width;
      runner.run(
          block, counts[stage], next < end ? next : nullptr, group.samples, before + at,
          hidden + at);
    }
    readout.read(samples.spans, hidden, vectors.mutable_data_ptr<float>());
    exits.pass(vectors, head_of[stage], steps[stage]);
    const int32_t* exited_at = exit_layer.const_data_ptr<int32_t>();
    const auto has_exited = [&](const Span& span) { return exited_at[span.sample] != 0; };
    auto& spans = samples.spans;
    spans.erase(std::remove_if(spans.begin(), spans.end(), has_exited), spans.end());
    block = next;
    before = hidden;
    ++stage;
  }
  return {stage, evictions};
}

}  // namespace
}  // namespace eefast::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(eefast, m) {
  // x f32 [B, T, D] after some blocks; mask f32 [B or 1, T], bias f32 [H, T, T], tables are pairs of
  // cosines and sines f32 [B or 1, T, E].
  m.def(
      "packed_blocks(Tensor x, Tensor[] blocks, Tensor? mask, Tensor? bias, Tensor[] tables,"
      " float outside) -> Tensor");
  // A ragged batch stage by stage, until all samples have exited or no stage is left: counts[i] of
  // the blocks, and the exit step steps[i] on a vector of each sample. x f32 [R, D] is the tokens of
  // the samples, one sample behind the other, lengths int64 [B] says how many each has, at most T,
  // which is `tokens`. The vector is the first token or the mean of the tokens that the mask does
  // not hide, past a norm with weight and bias f32 [D]. heads are the tensors of the exits, one
  // exit after the other; bit j of given[i] says whether exit i has part j of pooler_weight,
  // pooler_bias, weight, bias, cascade, scorer. The rest is exit_step's. Returns how many stages ran
  // and how often samples were evicted.
  m.def(
      "packed_stages(Tensor x, Tensor lengths, int tokens, Tensor[] blocks, int[] counts,"
      " Tensor? mask, Tensor? bias, Tensor[] tables, float outside, bool mean,"
      " Tensor? norm_weight, Tensor? norm_bias, float eps, Tensor[] heads, int[] given, int[] steps, Tensor table, Tensor(a!) score,"
      " Tensor(b!) prediction, Tensor(c!) exit_layer, Tensor(d!) logits, Tensor(e!) running,"
      " Tensor(f!)? votes, Tensor(g!)? memory) -> (int, int)");
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CPU, m) {
  m.impl("packed_blocks", TORCH_BOX(&eefast::cpu::packed_blocks));
  m.impl("packed_stages", TORCH_BOX(&eefast::cpu::packed_stages));
}
