// The arguments of eefast::exit_step and the checks that all devices, and eefast::similarity_step,
// share.

#pragma once

#include <algorithm>
#include <initializer_list>

#include "argument.h"
#include "policy.h"

namespace eefast {

// The tensors of one call, in the order of the op's schema. Each is owned before anything can
// throw.
struct Tensors {
  explicit Tensors(const StableIValue* stack)
      : hidden(Argument::required("hidden", stack[0])),
        offsets(Argument::optional("offsets", stack[1])),
        pooler_weight(Argument::optional("pooler_weight", stack[2])),
        pooler_bias(Argument::optional("pooler_bias", stack[3])),
        weight(Argument::required("weight", stack[4])),
        bias(Argument::optional("bias", stack[5])),
        cascade(Argument::optional("cascade", stack[6])),
        scorer(Argument::optional("scorer", stack[7])),
        table(Argument::required("table", stack[8])),
        rows(Argument::optional("rows", stack[9])),
        step(to<int64_t>(stack[10])),
        score(Argument::required("score", stack[11])),
        prediction(Argument::required("prediction", stack[12])),
        exit_layer(Argument::required("exit_layer", stack[13])),
        logits(Argument::required("logits", stack[14])),
        running(Argument::required("running", stack[15])),
        votes(Argument::optional("votes", stack[16])),
        memory(Argument::optional("memory", stack[17])),
        control(Argument::optional("control", stack[18])) {}

  const Argument hidden, offsets, pooler_weight, pooler_bias, weight, bias, cascade, scorer, table,
      rows;
  const int64_t step;
  const Argument score, prediction, exit_layer, logits, running, votes, memory, control;
};

// What is known of a call besides its tensors, once it has passed the checks.
struct Call {
  int64_t rows, tokens, width, samples, exits;
  int64_t classes;  // without the row of a scorer
  int64_t exit;     // 1-based
  int32_t layer;
  Keep keep;
  Gain gain;
  bool strict;
  Accumulate accumulate;
  Scorer scorer;

  bool last_exit() const { return exit == exits; }
  int64_t outputs() const { return classes + (scorer == Scorer::kRow); }
};

// The vectors that the head reads. `tokens` is how many there are to choose from by offset.
template <class AnyTensors>
void check_hidden(const AnyTensors& on, Call& call) {
  const int64_t dim = on.hidden.dim();
  if (on.offsets.given()) {
    if (dim != 2) fail("hidden must be [tokens, width] with offsets; got ", on.hidden.text());
    if (on.offsets.dim() != 1) fail("offsets must be [rows]; got ", on.offsets.text());
    call.rows = on.offsets.size(0);
    on.offsets.template expect<1>(aoti_torch_dtype_int64(), {call.rows});
  } else {
    if (dim != 2 && dim != 3) {
      fail("hidden must be [rows, width] or [rows, tokens, width]; got ", on.hidden.text());
    }
    if (dim == 3 && on.hidden.size(1) < 1) {
      fail("hidden must have at least one token; got ", on.hidden.text());
    }
    call.rows = on.hidden.size(0);
  }
  call.tokens = on.hidden.size(0);
  call.width = on.hidden.size(dim - 1);
  if (on.hidden.stride(dim - 1) != 1 && call.width > 1 && call.tokens > 0) {
    fail(
        "the elements of a row of hidden must be adjacent; got a stride of ",
        on.hidden.stride(dim - 1));
  }
}

// The exit and the policy's kinds: the bits of eefast/ops/step.py.
inline void check_step(int64_t step, Call& call) {
  call.exit = expect_in("exit", step & 0xFFFF, 1, call.exits);
  call.layer = static_cast<int32_t>(expect_in("layer", step >> 16 & 0xFFFF, 1, 0xFFFF));
  call.keep = static_cast<Keep>(expect_in("keep", step >> 32 & 0xFF, 0, kKeepKinds - 1));
  call.gain = static_cast<Gain>(expect_in("gain", step >> 40 & 0xFF, 0, kGainKinds - 1));
  call.strict = step >> 48 & 1;
  call.accumulate = static_cast<Accumulate>(
      expect_in("accumulate", step >> 49 & 7, 0, kAccumulateKinds - 1));
  call.scorer =
      static_cast<Scorer>(expect_in("scorer's kind", step >> 52 & 3, 0, kScorerKinds - 1));

  const bool by_score = call.keep == Keep::kNotScore || call.keep == Keep::kScoreAbove ||
      call.gain == Gain::kScore || call.gain == Gain::kScoreAbove;
  if (by_score && call.scorer == Scorer::kNone) {
    fail("a policy that keeps by, or gains, the learned score needs a scorer");
  }
  if (call.gain == Gain::kVotes && call.accumulate != Accumulate::kVotes) {
    fail("a policy that gains votes must accumulate them");
  }
  const bool without_share =
      call.accumulate == Accumulate::kLogProbabilities || answers(call.accumulate);
  if (call.scorer == Scorer::kNetwork && without_share) {
    fail("a network reads the vote share, which the accumulator has not");
  }
}

// The scorer's weights, the votes and the memory: each where the policy asks for it.
inline void check_parts(const Tensors& on, const Call& call) {
  const int32_t float32 = aoti_torch_dtype_float32();
  const bool network = call.scorer == Scorer::kNetwork;
  if (on.scorer.given() != network) {
    fail("scorer must be given if and only if the policy has a network");
  }
  if (network) {
    if (on.scorer.dim() != 2) fail("scorer must be [units, features + 2]; got ", on.scorer.text());
    on.scorer.expect<2>(float32, {on.scorer.size(0), features(call.classes, call.exit) + 2});
  }
  if (on.votes.given() != (network || gathers(call.accumulate))) {
    fail("votes must be given if and only if the policy gathers something or has a network");
  }
  if (on.votes.given()) on.votes.expect<2>(float32, {call.samples, call.classes});
  if (!on.memory.given()) {
    if (network) fail("memory must be given where the policy has a network; got None");
    return;
  }
  if (call.scorer == Scorer::kNone) fail("memory holds a scorer's scores; there is no scorer");
  if (on.memory.dim() != 2 || on.memory.size(1) < call.exits) {
    fail("memory must be [samples, ", call.exits, " or more]; got ", on.memory.text());
  }
  on.memory.expect<2>(float32, {call.samples, on.memory.size(1)});
}

// What every op has that takes running samples past an exit: hidden states, table, step, rows, and
// of the state score, exit_layer and running.
template <class AnyTensors>
Call checked_rows(
    const AnyTensors& on, std::initializer_list<int32_t> dtypes, const char* names) {
  Call call{};
  const int32_t float32 = aoti_torch_dtype_float32(), dtype = on.hidden.dtype();
  if (std::find(dtypes.begin(), dtypes.end(), dtype) == dtypes.end()) {
    fail("hidden must be ", names, "; got ", on.hidden.text());
  }
  check_hidden(on, call);

  if (on.table.dim() != 2 || on.table.size(0) < 1) {
    fail("table must be [exits, 3]; got ", on.table.text());
  }
  call.exits = on.table.size(0);
  on.table.template expect<2>(float32, {call.exits, 3});
  check_step(on.step, call);

  if (on.score.dim() != 1) fail("score must be [samples]; got ", on.score.text());
  call.samples = on.score.size(0);
  on.score.template expect<1>(float32, {call.samples});
  on.exit_layer.template expect<1>(aoti_torch_dtype_int32(), {call.samples});
  on.running.template expect<1>(aoti_torch_dtype_bool(), {call.exits});
  if (on.rows.given()) {
    on.rows.template expect<1>(aoti_torch_dtype_int64(), {call.rows});
  } else if (call.rows != call.samples) {
    fail(
        "hidden has ", call.rows, " rows for ", call.samples,
        " samples: rows must say to which sample each belongs");
  }
  return call;
}

// Checks all that can be known without reading a tensor's elements, which may be on a device: what
// `rows` and `offsets` hold is left.
inline Call checked(
    const Tensors& on, std::initializer_list<int32_t> dtypes, const char* names) {
  Call call = checked_rows(on, dtypes, names);
  const int32_t float32 = aoti_torch_dtype_float32(), dtype = on.hidden.dtype();
  on.prediction.expect<1>(aoti_torch_dtype_int32(), {call.samples});
  if (on.logits.dim() != 2 || on.logits.size(1) < 1) {
    fail("logits must be [samples, classes] with at least one class; got ", on.logits.text());
  }
  call.classes = on.logits.size(1);
  on.logits.expect<2>(float32, {call.samples, call.classes});
  if (on.control.given()) on.control.expect<2>(aoti_torch_dtype_int64(), {call.exits, 2});

  on.weight.expect<2>(dtype, {call.outputs(), call.width});
  if (on.bias.given()) on.bias.expect<1>(dtype, {call.outputs()});
  if (on.cascade.given()) on.cascade.expect<2>(float32, {call.classes, call.classes});
  if (on.pooler_weight.given()) on.pooler_weight.expect<2>(dtype, {call.width, call.width});
  if (on.pooler_bias.given()) {
    if (!on.pooler_weight.given()) fail("pooler_bias needs pooler_weight; got None for it");
    on.pooler_bias.expect<1>(dtype, {call.width});
  }
  check_parts(on, call);
  return call;
}

}  // namespace eefast
