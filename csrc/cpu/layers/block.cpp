#include "block.h"

#include <algorithm>

#include "../instruction_set.h"

namespace eefast::cpu {
namespace {

constexpr int64_t kRowsAtOnce = 4;  // of what is done row by row
constexpr int64_t kStepsOfBlock = 10;

struct Norm {
  const float *weight, *bias;
  float eps;

  bool given() const { return eps >= 0.0f; }
};

Norm attention_norm(const Block& block) {
  return {block.norms, block.norms + block.header->width, block.header->attention_eps};
}

Norm feed_forward_norm(const Block& block) {
  const float* weight = block.norms + 2 * block.header->width;
  return {weight, weight + block.header->width, block.header->feed_forward_eps};
}

int64_t multiplications(const Block& block, int64_t rows) {
  int64_t of_row = 0;
  for (const PackedLinear* layer : {&block.qkv, &block.output, &block.up, &block.down}) {
    of_row += layer->inputs * layer->outputs;
  }
  return rows * of_row;
}

}  // namespace

// Where a block's intermediate rows lie. Those in the dtype of a linear layer have its row_bytes();
// fp32 ones are written there at once.
struct BlockRunner::Buffers {
  Buffers(const Block& shapes, int64_t rows, int64_t tokens, int64_t threads) {
    Arena sizes(nullptr);
    take(sizes, shapes, rows, tokens, threads);
    memory = allocate(sizes.used());
    Arena arena(memory.get());
    take(arena, shapes, rows, tokens, threads);
  }

  void take(Arena& arena, const Block& block, int64_t rows, int64_t tokens, int64_t threads);

  Memory memory;
  float *sum, *normed, *qkv, *seen, *inner, *scratch;
  RowBuffer input, seen_rows, inner_rows;
  int64_t qkv_stride, seen_stride, inner_stride, scratch_of_thread;
};

void BlockRunner::Buffers::take(
    Arena& arena, const Block& block, int64_t rows, int64_t tokens, int64_t threads) {
  const int64_t width = block.header->width;
  sum = arena.take<float>(rows * width);
  normed = arena.take<float>(rows * width);
  input = take_rows(arena, block.qkv, rows);
  qkv_stride = block.qkv.outputs + 16;
  qkv = arena.take<float>(rows * qkv_stride);
  seen_rows = take_rows(arena, block.output, rows);
  inner_rows = take_rows(arena, block.down, rows);
  const bool fp32 = block.output.packing == Packing::kFloat32;
  if (fp32) {
    seen_stride = seen_rows.bytes / 4;
    seen = reinterpret_cast<float*>(seen_rows.data);
  } else {
    seen_stride = block.output.inputs;
    seen = arena.take<float>(rows * seen_stride);
  }
  if (fp32 && !block.header->gated) {
    inner_stride = inner_rows.bytes / 4;
    inner = reinterpret_cast<float*>(inner_rows.data);
  } else {
    inner_stride = block.up.outputs;
    inner = arena.take<float>(rows * inner_stride);
  }
  scratch_of_thread = (attend_scratch(tokens, block.header->head_width) + 15) / 16 * 16;
  scratch = arena.take<float>(threads * scratch_of_thread);
}

// One thread's way through the blocks.
class BlockRunner::Walk {
 public:
  Walk(
      const Block& shapes, const Buffers& buffers, const Operands& operands, const Samples& samples,
      Step* steps, int64_t thread)
      : width_(shapes.header->width), rows_(samples.rows), to_(buffers), operands_(operands),
        samples_(samples), kernels_(active_layer_kernels()), step_(steps), thread_(thread) {}

  void run(const Block* blocks, int64_t count, const Block* after, const float* x, float* out) {
    Rows input{};
    for (int64_t i = 0; i < count; ++i) {
      const Block& block = blocks[i];
      const bool last = i + 1 == count;
      const Block* next = last ? after : &block + 1;
      const bool pre_norm = block.header->pre_norm, gated = block.header->gated;
      const Norm first = attention_norm(block), second = feed_forward_norm(block);
      if (i == 0 || pre_norm) {
        input = prepare(x, pre_norm ? first : kNone, to_.normed, &block.qkv);
      }
      multiply_rows(block.qkv, input, Activation::kNone, nullptr, to_.qkv, to_.qkv_stride, &block.output);
      attend(block);
      const Rows seen = converted(block.output, to_.seen, to_.seen_stride, to_.seen_rows);
      multiply_rows(block.output, seen, Activation::kNone, x, to_.sum, width_, &block.up);
      input = prepare(
          to_.sum, pre_norm ? second : first, pre_norm ? to_.normed : to_.sum, &block.up);
      multiply_rows(
          block.up, input, gated ? Activation::kNone : block.header->activation, nullptr, to_.inner,
          to_.inner_stride, &block.down);
      const Rows inner =
          gated ? gate(block) : converted(block.down, to_.inner, to_.inner_stride, to_.inner_rows);
      multiply_rows(
          block.down, inner, Activation::kNone, to_.sum, out, width_, next ? &next->qkv : nullptr);
      if (!pre_norm) {
        const bool reads_it = !last && !next->header->pre_norm;
        input = prepare(out, second, out, reads_it ? &next->qkv : nullptr);
      }
      x = out;
    }
  }

 private:
  static constexpr Norm kNone{nullptr, nullptr, -1.0f};

  template <class Body>
  void row_by_row(const Body& body) {
    (step_++)->run(thread_, (rows_ + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t item) {
      const int64_t last = std::min((item + 1) * kRowsAtOnce, rows_);
      for (int64_t row = item * kRowsAtOnce; row < last; ++row) body(row);
    });
  }

  void multiply_rows(
      const PackedLinear& layer, const Rows& rows, Activation activation, const float* residual,
      float* out, int64_t stride, const PackedLinear* next) {
    multiply({layer, rows, rows_, activation, residual, out, stride, next}, *step_++, thread_);
  }

  // Norms rows, in place or not, and converts them for a layer, if one is given. No norm leaves
  // them where they are, and so do fp32 rows that fit the layer.
  Rows prepare(const float* from, const Norm& norm, float* to, const PackedLinear* layer) {
    const float* source = norm.given() ? to : from;
    const bool as_is = !layer || fits(*layer, 4 * width_);
    if (norm.given() || !as_is) {
      row_by_row([&](int64_t row) {
        const int64_t at = row * width_;
        if (norm.given()) {
          kernels_.normalise(from + at, width_, norm.weight, norm.bias, norm.eps, to + at);
        }
        if (!as_is) convert(*layer, source + at, to_.input, row);
      });
    }
    if (!as_is) return to_.input.rows();
    return {reinterpret_cast<const std::byte*>(source), 4 * width_, nullptr, nullptr};
  }

  Rows converted(
      const PackedLinear& layer, const float* from, int64_t stride, const RowBuffer& to) {
    if (layer.packing != Packing::kFloat32) {
      row_by_row([&](int64_t row) { convert(layer, from + row * stride, to, row); });
    }
    return to.rows();
  }

  Rows gate(const Block& block) {
    row_by_row([&](int64_t row) {
      float* inner = to_.inner + row * to_.inner_stride;
      kernels_.gate(block.header->activation, inner, block.inner(), inner);
      convert(block.down, inner, to_.inner_rows, row);
    });
    return to_.inner_rows.rows();
  }

  void attend(const Block& block) {
    const BlockHeader& header = *block.header;
    const int64_t tokens = operands_.tokens, width = header.head_width;
    const int64_t all = header.heads * width;
    const auto spans = static_cast<int64_t>(samples_.spans.size());
    (step_++)->run(thread_, spans * header.heads, [&](int64_t item) {
      const Span& span = samples_.spans[item / header.heads];
      const int64_t head = item % header.heads;
      const float* queries = to_.qkv + span.first * to_.qkv_stride + head * width;
      const float *cosines = nullptr, *sines = nullptr;
      if (header.rotary >= 0) {
        const Operands::Tables& tables = operands_.rotary[header.rotary];
        cosines = tables.cosines + span.sample * tables.stride;
        sines = tables.sines + span.sample * tables.stride;
      }
      kernels_.attend({
          queries,
          queries + all,
          queries + 2 * all,
          to_.qkv_stride,
          span.tokens,
          width,
          header.scale,
          operands_.mask ? operands_.mask + span.sample * operands_.mask_stride : nullptr,
          operands_.bias ? operands_.bias + head * tokens * tokens : nullptr,
          tokens,
          cosines,
          sines,
          header.window,
          operands_.outside,
          to_.scratch + thread_ * to_.scratch_of_thread,
          to_.seen + span.first * to_.seen_stride + head * width,
          to_.seen_stride,
      });
    });
  }

  const int64_t width_, rows_;
  const Buffers& to_;
  const Operands& operands_;
  const Samples& samples_;
  const LayerKernels& kernels_;
  Step* step_;
  const int64_t thread_;
};

BlockRunner::BlockRunner(const Block& shapes, const Operands& operands, int64_t rows)
    : operands_(operands), threads_(threads_for(multiplications(shapes, rows))),
      buffers_(new Buffers(shapes, rows, operands.tokens, threads_)) {}

BlockRunner::~BlockRunner() = default;

void BlockRunner::run(
    const Block* blocks, int64_t count, const Block* next, const Samples& samples, const float* x,
    float* out) {
  const std::unique_ptr<Step[]> steps(new Step[count * kStepsOfBlock]);
  const int64_t threads = std::min(threads_, threads_for(multiplications(blocks[0], samples.rows)));
  on_threads(threads, [&](int64_t thread) {
    Walk(blocks[0], *buffers_, operands_, samples, steps.get(), thread)
        .run(blocks, count, next, x, out);
  });
}

}  // namespace eefast::cpu
