"""What one exit costs: the papers' eager chain against the implementations of the exit step.

    pytest bench/test_exit_step.py --benchmark-only --benchmark-group-by=param:case

All variants do the same work from the same strided hidden states [B, T, D], of which the head
reads the first token. On the CPU one thread and fp32; where there is a GPU, there and in bf16, and
every call waits for the GPU to finish.
"""

import pytest
import torch
import torch.nn.functional as F

from eefast.ops import ExitState, Gain, HeadWeights, Keep, Step, implementation
from eefast.ops.implementations import CUDA_ROWS

CASES = {
    f"{kind} D={d} C={c} B={b}": (kind, d, c, b)
    for kind, d, c in (
        ("linear", 768, 2),
        ("linear", 384, 3),
        ("pooler", 768, 2),
        ("pooler", 384, 3),
        ("vocabulary", 768, 50257),
    )
    for b in (1, 8, 64)
}
EXITS = 12
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
IMPLS = ("reference", "triton", "cuda") if DEVICE == "cuda" else ("reference", "cpp")


def setup_of(case):
    kind, d, c, b = CASES[case]
    torch.manual_seed(0)
    made = dict(dtype=DTYPE, device=DEVICE)
    pooler = (None, None)
    if kind == "pooler":
        pooler = (torch.randn(d, d, **made) * d**-0.5, torch.zeros(d, **made))
    head = HeadWeights(*pooler, torch.randn(c, d, **made) * d**-0.5, torch.zeros(c, **made))
    return torch.randn(b, 32, d, **made), head, c, b


def eager_chain(hidden, head, c, b):
    """One exit of BEEM as the papers' code writes it: two `.item()` at batch 1, a loop's worth of
    tensor calls and one host read for a batch."""
    score = torch.zeros(b, device=DEVICE)
    previous = torch.full((b,), -1, device=DEVICE)
    last_score, last_prediction = 0.0, -1

    def call():
        x = hidden[:, 0]
        if head.pooler_weight is not None:
            x = torch.tanh(F.linear(x, head.pooler_weight, head.pooler_bias))
        probabilities = F.softmax(F.linear(x, head.weight, head.bias).float(), dim=-1)
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
        if impl == "cuda" and b > CUDA_ROWS:
            pytest.skip(f"impl='cuda' takes up to {CUDA_ROWS} rows")
        op, state = implementation(impl, DEVICE, DTYPE), ExitState.start(b, c, EXITS, DEVICE)
        # Nobody leaves: no call is idle.
        table = torch.tensor([[0.5, float("inf"), 0.0]] * EXITS, device=DEVICE)
        step = Step(exit=1, layer=1, keep=Keep.AGREE, gain=Gain.CONFIDENCE).pack()
        others = (None, *head, None, table, None, step, *state)

        def call():
            op(hidden, *others)
            return bool(state.running[0]) if DEVICE == "cuda" else running[0]

        running = state.running.cpu().numpy()
        return call

    return make


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "variant",
    [eager_chain, *map(exit_step, IMPLS)],
    ids=["eager", *IMPLS],
)
def test_exit(benchmark, case, variant):
    torch.set_num_threads(1)
    benchmark.group = case
    benchmark.extra_info["device"] = DEVICE
    with torch.inference_mode():
        benchmark(variant(*setup_of(case)))
