"""What the parts of a call cost, as published for other machines, derived, or assumed.

`published`: measured and published, on the hardware named. `derived`: a difference of such numbers.
`ASSUMED`: a guess with a reason. Nothing of it was measured on a GPU by us.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MEGAKERNEL = "https://hazyresearch.stanford.edu/blog/2025-05-27-no-bubbles"
STRAIGHT_LINE = (
    "https://developer.nvidia.com/blog/constant-time-launch-for-straight-line-cuda-graphs-and-"
    "other-performance-enhancements/"
)


def _constant(us: float, status: str, meaning: str, where: str, source: str = "") -> Any:
    """A field; `status` is published, derived or ASSUMED, `where` the hardware or the reasoning."""
    notes = dict(status=status, meaning=meaning, where=where, source=source)
    return field(default=us, metadata=notes)


@dataclass(frozen=True)
class Constants:
    """What the parts of a call cost, all in us; where each number comes from is its metadata."""

    op_us: float = _constant(
        7.0, "published", "host: one eager PyTorch op that launches one kernel",
        "H100, fitted to op times. TorchScript on A100 took 25, if a layer is 15 kernels: "
        "FasterTransformer's guide has 4.2 to 4.5 ms for 12 layers at any length",
        "https://github.com/meta-pytorch/autoparallel/pull/146",
    )  # fmt: skip
    graph_launch_us: float = _constant(
        2.5, "published", "host: one cudaGraphLaunch",
        "RTX 3060, Xeon Silver 4208, CUDA 12.6", STRAIGHT_LINE,
    )  # fmt: skip
    graph_node_us: float = _constant(
        0.001, "published", "host: each node of that graph",
        "the same, for graphs without branches; 0.2 in CUDA 11.8", STRAIGHT_LINE,
    )  # fmt: skip
    graph_gap_us: float = _constant(
        1.3, "published", "GPU: from the end of a kernel to the next one's start, in a graph",
        "H100", MEGAKERNEL,
    )  # fmt: skip
    stream_gap_us: float = _constant(
        0.8, "derived", "GPU: how much longer that gap is on a stream",
        "H100: 2.1 us on a stream, less 1.3", MEGAKERNEL,
    )  # fmt: skip
    null_us: float = _constant(
        1.2, "published", "GPU: a kernel that does nothing",
        "H100 PCIe, CUDA 12.6: 1.235 us", "https://arxiv.org/abs/2504.11750",
    )  # fmt: skip
    exit_us: float = _constant(
        3.0, "ASSUMED", "GPU: the exit step's kernel, without its gap",
        "an empty kernel and two reductions over a vector; bytes alone: docs/aot.md",
    )  # fmt: skip
    copy_issue_us: float = _constant(
        6.0, "published", "host: one cudaMemcpyAsync of a few bytes",
        "5 to 7 us; GPU not stated where we read it", "https://arxiv.org/abs/2602.21548",
    )  # fmt: skip
    copy_us: float = _constant(
        2.0, "ASSUMED", "GPU: that copy, on the stream",
        "of the 9.2 us below",
    )  # fmt: skip
    wait_us: float = _constant(
        1.2, "derived", "host: from the copy's end to going on after a wait",
        "RTX 5090: 4 bytes copied and waited for in 9.2 us at best (median 31.4), less the 6.0 and "
        "2.0 above", "https://github.com/kekzl/imp/issues/1654",
    )  # fmt: skip
    news_us: float = _constant(
        3.0, "ASSUMED", "host: an event recorded and a slot looked at, per stage (run-ahead)",
        "two calls from Python, one of them numpy's",
    )  # fmt: skip
    node_us: float = _constant(
        2.5, "ASSUMED", "GPU: an IF node, whether its body runs or not",
        "we found no measurement; 1 to 5 is a guess, and 10 is shown too",
    )  # fmt: skip


PUBLISHED = Constants()
