#include "similarity_step.h"

#include <cstddef>
#include <cstdint>

#include "../arguments.h"
#include "instruction_set.h"

namespace eefast::cpu {
namespace {

// The tensors of one call, in the order of the op's schema.
struct SimilarityTensors {
  explicit SimilarityTensors(const StableIValue* stack)
      : hidden(Argument::required("hidden", stack[0])),
        offsets(Argument::optional("offsets", stack[1])),
        table(Argument::required("table", stack[2])),
        rows(Argument::optional("rows", stack[3])),
        step(to<int64_t>(stack[4])),
        previous(Argument::required("previous", stack[5])),
        score(Argument::required("score", stack[6])),
        exit_layer(Argument::required("exit_layer", stack[7])),
        running(Argument::required("running", stack[8])) {}

  const Argument hidden, offsets, table, rows;
  const int64_t step;
  const Argument previous, score, exit_layer, running;
};

}  // namespace

// Boxed by hand, because Argument needs it. All checks come before the first write.
void similarity_step(StableIValue* stack, uint64_t, uint64_t) {
  const SimilarityTensors on(stack);
  const int32_t float32 = aoti_torch_dtype_float32(), bfloat16 = aoti_torch_dtype_bfloat16();
  const Call call = checked_rows(on, {float32, bfloat16}, "Float or BFloat16");
  if (call.keep != Keep::kNever) fail("a similarity is not kept: keep must be NEVER");
  on.previous.expect<2>(float32, {call.samples, call.width});
  const int64_t* sample_of_row = checked_elements(on.rows, "rows", call.samples);
  const int64_t* offset_of_row = checked_elements(on.offsets, "offsets", call.tokens);

  const bool is_bfloat16 = on.hidden.dtype() == bfloat16;
  const Dtype dtype = is_bfloat16 ? Dtype::kBFloat16 : Dtype::kFloat32;
  const int64_t row_bytes = on.hidden.stride(0) * (is_bfloat16 ? 2 : 4);
  const float* row_of_table = on.table.data<float>() + 3 * (call.exit - 1);
  const Policy policy{
      call.keep, call.gain, call.strict, call.last_exit(), row_of_table[0], row_of_table[1], 0.0f};
  const std::byte* hidden = on.hidden.data<std::byte>();
  float* previous = on.previous.mutable_data<float>();
  float* scores = on.score.mutable_data<float>();
  int32_t* exit_layer = on.exit_layer.mutable_data<int32_t>();
  const Kernels& kernels = active_kernels();

  bool any_running = false;
  for (int64_t row = 0; row < call.rows; ++row) {
    const int64_t sample = sample_of_row ? sample_of_row[row] : row;
    if (exit_layer[sample] != 0) continue;
    const int64_t offset = offset_of_row ? offset_of_row[row] : row;
    scores[sample] = policy.weight *
        kernels.similarity(
            dtype, hidden + offset * row_bytes, call.width, previous + sample * call.width);
    if (exits(policy, scores[sample])) {
      exit_layer[sample] = call.layer;
    } else {
      any_running = true;
    }
  }
  if (any_running) on.running.mutable_data<bool>()[call.exit - 1] = true;
}

}  // namespace eefast::cpu
