"""docs/cpu_texts.md from docs/cpu_texts.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bench.cpu_peers.page import environment_line
from bench.cpu_texts import CUT, EXITS, NEVER, OWN, PEERS, TASK, TIMED
from eefast.measure import markdown_table

LAYERS = 6

_TEXT = """\
# Early exit in packed layers against OpenVINO, on real texts

Written by `python -m bench.cpu_texts`. MiniLM with six exits, trained by `make demo` on {task};
accuracy on its {texts} test texts, times of the first {timed}, one text at a time (batch 1),
tokenizing not counted. {exits} is the policy that the demo calibrated on validation texts, on the
model's own layers; "{cut}" is the same model without the layers and exits behind, for OpenVINO as
a model of its own. OpenVINO's int8 is NNCF's, calibrated on 300 validation texts. "Changed" is
against the model's own layers under the same policy.

Every engine has a process of its own, with {threads} threads. In each of {rounds} rounds every
row is asked once, in an order drawn anew, and whoever is not asked is stopped. p50 is the median
text. The time against {judge} is that of all {timed} texts: the median over the rounds, from the
lowest to the highest. The last column is the speed-up over full depth of the same layers, over the
layer speed-up of the timed texts: 1 is what a decision without any cost would give.
"""


class Row(NamedTuple):
    """One engine under one policy."""

    found: Mapping[str, Any]
    judge: Mapping[str, Any]  # what it is compared with
    full: Mapping[str, Any]  # the same engine at full depth

    @property
    def speedup(self) -> float:
        """In layers."""
        return LAYERS / float(self.found["layers"])

    def against(self, other: Mapping[str, Any]) -> tuple[float, float, float]:
        """Our time over the other's, paired by rounds: the median, the lowest and the highest."""
        ratios = _totals(self.found) / _totals(other)
        return float(np.median(ratios)), float(ratios.min()), float(ratios.max())

    @property
    def cells(self) -> list[str]:
        found = self.found
        ratio, low, high = self.against(self.judge)
        wall = 1 / self.against(self.full)[0]
        return [
            found["policy"],
            found["engine"],
            f"{found['accuracy']:.4f}",
            str(found["exits_changed"]),
            str(found["answers_changed"]),
            f"{self.speedup:.2f}x",
            f"{np.median(np.median(found['ms'], axis=0)):.2f}",
            f"{ratio:.2f} ({low:.2f} to {high:.2f})",
            f"{wall * float(found['layers_timed']) / LAYERS:.2f}",
        ]


JUDGE = "OpenVINO int8"
_COLUMNS = (
    "policy",
    "engine",
    "accuracy",
    "exits changed",
    "answers changed",
    "layer speed-up",
    "p50 ms",
    f"time against {JUDGE}, {NEVER}",
    "wall clock over layer speed-up",
)


def markdown(results: Mapping[str, Any]) -> str:
    """The whole page."""
    text = _TEXT.format(
        task=TASK,
        texts=results["texts"],
        timed=TIMED,
        exits=EXITS,
        cut=CUT,
        judge=f"{JUDGE} at {NEVER}",
        threads=results["environment"]["threads"],
        rounds=results["rounds"],
    )
    table = markdown_table(_COLUMNS, [row.cells for row in rows(results)])
    ways = [
        f"- {one['engine']}: {one['way']}"
        for one in results["engines"]
        if one["policy"] == NEVER and one["engine"] != OWN
    ]
    where = environment_line(results["environment"])
    return "\n".join(
        [text, where, "", table, "", *headline(results), "", "Set up as:\n", *ways, ""]
    )


_SHORT = [
    (OWN, NEVER),
    (JUDGE, NEVER),
    (JUDGE, CUT),
    ("int8", NEVER),
    ("int8", CUT),
    ("int8", EXITS),
]


def short(results: Mapping[str, Any]) -> str:
    """The README's table: int8, and the model's own layers, in a few columns."""
    by_name = {(row.found["engine"], row.found["policy"]): row for row in rows(results)}
    cells = []
    for key in _SHORT:
        policy, engine, accuracy, _, _, speedup, p50, against, _ = by_name[key].cells
        cells.append([_title(engine), policy, accuracy, speedup, p50, against])
    where = results["environment"]
    columns = ["engine", "policy", "accuracy", "layer speed-up", "p50 ms", "time"]
    return (
        f"{markdown_table(columns, cells)}\n\n"
        f"MiniLM with six exits on {results['texts']} held-out {TASK}; one text at a time, "
        f"{where['threads']} threads of {where['cpu']}. Time: of {TIMED} texts, against {JUDGE} "
        f"at {NEVER}, the median of {results['rounds']} rounds and from lowest to highest; one "
        f"process per engine, in turn. {_stops(by_name['int8', EXITS])} The standard error of an "
        "accuracy is 0.006. More engines and "
        "precisions: [docs/cpu_texts.md](docs/cpu_texts.md).\n"
    )


def _title(engine: str) -> str:
    return "PyTorch fp32" if engine == OWN else engine if engine in PEERS else f"eefast {engine}"


def rows(results: Mapping[str, Any]) -> list[Row]:
    """All, by policy and then by engine."""
    by_name = {(one["engine"], one["policy"]): one for one in results["engines"]}
    return [
        Row(one, by_name[JUDGE, NEVER], by_name[one["engine"], NEVER])
        for policy in (NEVER, EXITS, CUT)
        for one in results["engines"]
        if one["policy"] == policy
    ]


def headline(results: Mapping[str, Any]) -> list[str]:
    """Our best against OpenVINO int8 at full depth and cut, and against our own cut."""
    by_name = {(row.found["engine"], row.found["policy"]): row for row in rows(results)}
    ours = by_name["int8", EXITS]
    lines = [f"{EXITS} in int8, accuracy {ours.found['accuracy']:.4f}, takes:", ""]
    for key in [(JUDGE, NEVER), (JUDGE, CUT), ("int8", NEVER), ("int8", CUT)]:
        other = by_name[key].found
        ratio, low, high = ours.against(other)
        lines.append(
            f"- {ratio:.2f} ({low:.2f} to {high:.2f}) of the time of {_title(key[0])} at {key[1]}, "
            f"whose accuracy is {other['accuracy']:.4f}"
        )
    return [*lines, "", _stops(ours)]


def _stops(row: Row) -> str:
    found = row.found
    return (
        f"{EXITS} stops the timed texts after {found['layers_timed']:.2f} layers on average, and "
        f"all of them after {found['layers']:.2f}."
    )


def _totals(found: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.sum(found["ms"], axis=1)
