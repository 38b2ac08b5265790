// A block of an encoder, which is attention and feed-forward with their norms and residuals, packed
// into one buffer:
//
//   header, 128 bytes | norms f32 [4, D], padded to 64 bytes | qkv | output | up | down
//
// where the norms are attention weight and bias, then feed-forward weight and bias, and the linear
// layers lie as packed.h says. eefast/lowering/program.py says what a block computes.

#pragma once

#include <memory>
#include <vector>

#include "packed.h"

namespace eefast::cpu {

struct BlockHeader {
  char magic[8];
  int64_t bytes, width, heads, head_width;
  int64_t window;           // negative: none
  int64_t rotary;           // which pair of tables; negative: none
  float scale;              // of the queries
  float attention_eps, feed_forward_eps;  // negative: no norm
  Activation activation;
  uint8_t gated, pre_norm, reserved[54];
};
static_assert(sizeof(BlockHeader) == 128);

struct Block {
  const BlockHeader* header;
  const float* norms;
  PackedLinear qkv, output, up, down;

  int64_t inner() const { return down.inputs; }
};

// The rows of one sample, which are its tokens.
struct Span {
  int64_t sample, first, tokens;
};

// The samples whose tokens attend, and the rows of the call: theirs, and maybe rows of samples that
// have exited, which are computed for nothing.
struct Samples {
  std::vector<Span> spans;
  int64_t rows;
};

// What the blocks of one call share; see eefast/lowering/program.py, Operands.
struct Operands {
  int64_t tokens;  // from one row of the bias to the next: at least those of any sample
  const float* mask;  // or null
  int64_t mask_stride;  // from one sample to the next; 0: one for all
  const float* bias;  // or null
  struct Tables {
    const float *cosines, *sines;
    int64_t stride;
  };
  const Tables* rotary;
  float outside;
};

// Runs blocks of the same shapes and dtype over x [rows, width], with the same memory each time.
class BlockRunner {
 public:
  // For calls of at most so many rows.
  BlockRunner(const Block& shapes, const Operands& operands, int64_t rows);
  ~BlockRunner();

  // out may be x. `next`, or null, is what is likely to run next: its weights are fetched ahead.
  void run(
      const Block* blocks, int64_t count, const Block* next, const Samples& samples, const float* x,
      float* out);

 private:
  struct Buffers;
  class Walk;

  const Operands& operands_;
  const int64_t threads_;
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace eefast::cpu
