"""The similarity step on a GPU, against the reference on the CPU."""

import pytest
import torch

from eefast.ops import SimilarityState, similarity_step
from tests.ops.cases import make_hidden, table_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_gpu(step):
    return {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in step.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("d", [1, 33, 768, 8192])
@pytest.mark.parametrize(
    "parts",
    [{}, {"rows": torch.tensor([3, 1, 8]), "offsets": torch.tensor([0, 7, 7])}],
    ids=["all", "some"],
)
def test_against_the_reference(dtype, d, parts):
    want = SimilarityState.start(make_hidden(9, d, dtype), 3)
    got = SimilarityState(*(t.cuda() for t in want))
    table = table_of(3, threshold=0.7)
    for exit in (1, 2, 3):
        hidden = (make_hidden(9, d, dtype, seed=2) + make_hidden(9, d, dtype) / exit).to(dtype)
        step = dict(exit=exit, layer=exit, strict=True, **parts)
        similarity_step(hidden, table, want, **step, impl="reference")
        similarity_step(hidden.cuda(), table.cuda(), got, **on_gpu(step), impl="triton")
        for ours, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(ours.cpu(), theirs, atol=1e-5, rtol=0)
