"""What one exit costs: the papers' eager chain against the implementations of the exit step.

    pytest bench/test_exit_step.py --benchmark-only --benchmark-group-by=param:case

All variants do the same work from the same strided hidden states [B, T, D], of which the head
reads the first token. One thread, fp32.
"""

import pytest
import torch
import torch.nn.functional as F

from eefast.ops import ExitState, Gain, HeadWeights, Keep, Step, implementation

CASES = {
    f"{kind} D={d} C={c} B={b}": (kind, d, c, b)
    for kind in ("linear", "pooler")
    for d, c in ((768, 2), (384, 3))
    for b in (1, 8, 64)
}
EXITS = 12


def setup_of(case):
    kind, d, c, b = CASES[case]
    torch.manual_seed(0)
    pooler = (torch.randn(d, d) * d**-0.5, torch.zeros(d)) if kind == "pooler" else (None, None)
    head = HeadWeights(*pooler, torch.randn(c, d) * d**-0.5, torch.zeros(c))
    return torch.randn(b, 32, d), head, c, b


def eager_chain(hidden, head, c, b):
    """One exit of BEEM as the papers' code writes it: two `.item()` at batch 1, a loop's worth of
    tensor calls and one host read for a batch."""
    score, previous = torch.zeros(b), torch.full((b,), -1)
    last_score, last_prediction = 0.0, -1

    def call():
        x = hidden[:, 0]
        if head.pooler_weight is not None:
            x = torch.tanh(F.linear(x, head.pooler_weight, head.pooler_bias))
        probabilities = F.softmax(F.linear(x, head.weight, head.bias), dim=-1)
        confidence, prediction = probabilities.max(-1)
        entropy = -(probabilities * torch.log(probabilities)).sum(-1)
        if b == 1:
            kept = last_score if prediction.item() == last_prediction else 0.0
            total = kept + 0.5 * confidence.item()
            return total >= 10.0, entropy
        total = torch.where(prediction == previous, score, 0.0) + 0.5 * confidence
        return bool((total >= 10.0).all()), entropy

    return call


def exit_step(impl):
    def make(hidden, head, c, b):
        op, state = implementation(impl), ExitState.start(b, c, EXITS)
        table = torch.tensor([[0.5, float("inf"), 0.0]] * EXITS)  # nobody leaves: no call is idle
        step = Step(exit=1, layer=1, keep=Keep.AGREE, gain=Gain.CONFIDENCE).pack()
        running = state.running.numpy()
        others = (None, *head, table, None, step, *state)

        def call():
            op(hidden.select(1, 0), *others)
            return running[0]

        return call

    return make


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "variant",
    [eager_chain, exit_step("reference"), exit_step("cpp")],
    ids=["eager", "reference", "cpp"],
)
def test_exit(benchmark, case, variant):
    torch.set_num_threads(1)
    benchmark.group = case
    with torch.inference_mode():
        benchmark(variant(*setup_of(case)))
