"""Calls on a real GPU, compared with the CPU; a hidden synchronisation is an error."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import torch

from eefast.policies import BEEM, PABEE, Budgeted, Confidence, Entropy, Never

POLICIES = [
    BEEM.cost(4, [0.2, 0.5, 0.9, 0.0]),
    PABEE(1),
    Entropy(0.5),
    Confidence(0.6),
    Confidence(0.0),
    Budgeted(2),
    Never(),
]
# float32 on both sides, summed in another order.
TOLERANCE = dict(atol=1e-3, rtol=1e-3)
HALF_A_SECOND = 10**9  # cycles, at 2 GHz; what the tests need is much more than a call takes


def to_gpu(inputs):
    return {name: value.cuda() for name, value in inputs.items()}


@contextlib.contextmanager
def no_synchronisation():
    """PyTorch raises wherever it would wait for the GPU; waiting for an event is not flagged."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def call(fast, inputs):
    """The output of the second call: the first may compile kernels and fill allocators."""
    fast(**inputs)
    with no_synchronisation():
        return fast(**inputs)


def check(out, wanted):
    assert out.exit_layer.tolist() == wanted.exit_layer.tolist()
    assert out.prediction.tolist() == wanted.prediction.tolist()
    torch.testing.assert_close(out.logits.cpu(), wanted.logits, **TOLERANCE)
    torch.testing.assert_close(out.score.cpu(), wanted.score, **TOLERANCE)


def check_from_threads(fast, batches, wanted, own_streams):
    """Three threads call one model with the same batches at once."""
    on_device = [to_gpu(batch) for batch in batches]
    torch.cuda.synchronize()

    def work(_):
        stream = torch.cuda.Stream() if own_streams else torch.cuda.current_stream()
        with torch.cuda.stream(stream):
            outs = [fast(**batch) for batch in on_device * 4]
        stream.synchronize()
        return outs

    with ThreadPoolExecutor(3) as pool:
        for outs in pool.map(work, range(3)):
            for out, want in zip(outs, wanted * 4, strict=True):
                check(out, want)
