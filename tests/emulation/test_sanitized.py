"""The kernel under AddressSanitizer and UndefinedBehaviorSanitizer."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from eefast.ops import Accumulate, ExitState, Gain, Keep, Recurrence, ScorerKind
from tests.emulation import prepare
from tests.emulation.apart import STATE, run_apart
from tests.emulation.build import KERNEL, build, load
from tests.emulation.plant import planted
from tests.ops.cases import goes_together, keep_of, make_head, make_hidden, table_of


def library_of_compiler(name):
    return subprocess.run(
        ["g++", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


LIBRARIES = [library_of_compiler(name) for name in ("libasan.so", "libstdc++.so")]
pytestmark = pytest.mark.skipif(
    not all(Path(library).is_absolute() for library in LIBRARIES),
    reason="g++ comes without its address sanitiser (libasan) here",
)


def call(
    dtype, d, c, *, rows=5, pooler=False, bias=True, tokens=None, exit=1, exited=1,
    accumulate=Accumulate.NONE, kind=ScorerKind.NONE,
):  # fmt: skip
    """A call in which nothing is larger than it has to be."""
    network = kind is ScorerKind.NETWORK
    # With one class AGREE compares outputs, and takes no accumulator.
    keep = keep_of(accumulate, Keep.ALWAYS if c == 1 and accumulate else Keep.AGREE)
    votes = Recurrence(0, 0, False, accumulate, kind).uses_votes
    state = ExitState.start(rows + 1, c, 2, votes=votes, memory=bool(kind))
    state.exit_layer[1 : 1 + exited] = 1
    samples = torch.arange(rows, 0, -1) if rows else torch.empty(0, dtype=torch.int64)
    extended = bool(accumulate or kind)
    head = make_head(
        d, c + (kind is ScorerKind.ROW), dtype, pooler, bias, cascade=c * extended
    )  # fmt: skip
    scorer = torch.full((3, c + 4 + exit), 0.1) if network else None
    hidden, offsets = make_hidden(rows, d, dtype), None
    if tokens:
        hidden = make_hidden(rows * tokens, d, dtype).clone()
        offsets = torch.arange(rows) * tokens + tokens - 1
    return prepare(
        hidden, head, table_of(2, threshold=0.6), state, exit=exit, layer=exit,
        keep=keep, gain=Gain.CONFIDENCE, rows=samples, offsets=offsets,
        accumulate=accumulate, scorer_kind=kind, scorer=scorer,
    )  # fmt: skip


def run_sanitized(calls, folder, kernel=None):
    return run_apart(
        build(kernel, sanitized=True), calls, folder,
        LD_PRELOAD=" ".join(LIBRARIES), ASAN_OPTIONS="detect_leaks=0",  # which are Python's own
    )  # fmt: skip


def test_nothing_is_read_or_written_out_of_bounds(tmp_path):
    calls = [
        call(dtype, d, c, pooler=pooler, bias=bias)
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
        for d in (1, 33, 64)  # the last a vector at a time
        for c, bias in ((1, True), (3, False), (300, True))
        for pooler in (False, True)
    ]
    calls += [
        call(torch.bfloat16, 40, 3, rows=rows, tokens=tokens, exit=exit)
        for rows in (0, 1, 8, 9, 32)
        for tokens in (None, 3)
        for exit in (1, 2)
    ]
    calls += [
        call(torch.float32, 40, c, exit=exit, accumulate=accumulate, kind=kind)
        for c in (1, 33)
        for exit in (1, 2)
        for accumulate in Accumulate
        for kind in ScorerKind
        if goes_together(Recurrence(keep_of(accumulate), Gain.CONFIDENCE, False, accumulate, kind))
    ]
    got, error = run_sanitized(calls, tmp_path)
    assert not error
    for seed, (ours, sanitized) in enumerate(zip(calls, got, strict=True)):
        load().exit_step(ours, seed)
        for name in STATE:
            if ours[name] is not None:
                np.testing.assert_allclose(sanitized[name], ours[name], rtol=1e-5, atol=1e-6)


def shifted(tensor):
    """The same numbers, one element beyond where a vector could begin."""
    return torch.cat([tensor.flatten()[:1], tensor.flatten()])[1:].view(tensor.shape)


@pytest.mark.parametrize("where", ["row", "hidden", "weight", "pooler_weight"])
def test_vectors_are_read_where_they_can_be(where, tmp_path):
    """Rows that do not begin on a vector's boundary: the sanitiser sees reads out of line."""
    rows, d, c = 3, 64, 3
    hidden, head = make_hidden(rows, d).clone(), make_head(d, c, pooler=True)
    if where == "row":
        hidden = torch.cat([hidden, torch.zeros(rows, 1)], 1)[:, :d]
    elif where == "hidden":
        hidden = shifted(hidden)
    else:
        head = head._replace(**{where: shifted(getattr(head, where))})
    step = prepare(
        hidden, head, table_of(2), ExitState.start(rows, c, 2), exit=1, layer=1, keep=Keep.AGREE,
        gain=Gain.CONFIDENCE, offsets=torch.arange(rows),
    )  # fmt: skip
    _, error = run_sanitized([step], tmp_path)
    assert not error


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        # a class too many; a row too many; a vector where the width has no room for it
        ("c < classes; c += kWarpSize", "c <= classes; c += kWarpSize"),
        ("if (row < step.rows)", "if (row <= step.rows)"),
        ("if (vectors) {", "if (true) {"),
        # the offset and the score of the row and the exit after
        ("step.offsets[row]", "step.offsets[row + 1]"),
        ("memory[step.exit - 1]", "memory[step.exit]"),
    ],
)
def test_a_read_out_of_bounds_is_found(right, wrong, tmp_path):
    kernel = planted(KERNEL.read_text(), right, wrong)
    _, error = run_sanitized(
        [call(torch.float32, 33, 3, exited=0, tokens=2, exit=2, kind=ScorerKind.ROW)],
        tmp_path, kernel,
    )  # fmt: skip
    assert "AddressSanitizer" in error or "runtime error" in error
