"""What one exit costs: the papers' eager chain, compared with the implementations of the exit step.

    pytest bench/test_exit_step.py --benchmark-only --benchmark-group-by=param:case

All variants do the same work from the same strided hidden states [B, T, D], of which the head
reads the first token. On the CPU one thread and fp32; where there is a GPU, there and in bf16, and
every call waits for the GPU to finish.
"""

import pytest
import torch
import torch.nn.functional as F

from bench.exits import exit_step, make_exit
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
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
IMPLS = ("reference", "triton", "cuda") if DEVICE == "cuda" else ("reference", "cpp")


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


def step_of(impl):
    def make(hidden, head, c, b):
        if impl == "cuda" and b > CUDA_ROWS:
            pytest.skip(f"impl='cuda' takes up to {CUDA_ROWS} rows")
        op, state = exit_step(impl, hidden, head)
        running = state.running.cpu().numpy()

        def call():
            op()
            return bool(state.running[0]) if DEVICE == "cuda" else running[0]

        return call

    return make


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "variant",
    [eager_chain, *map(step_of, IMPLS)],
    ids=["eager", *IMPLS],
)
def test_exit(benchmark, case, variant):
    torch.set_num_threads(1)
    benchmark.group = case
    benchmark.extra_info["device"] = DEVICE
    with torch.inference_mode():
        kind, d, c, b = CASES[case]
        hidden, head = make_exit(kind, d, c, b, DEVICE, DTYPE)
        benchmark(variant(hidden, head, c, b))
