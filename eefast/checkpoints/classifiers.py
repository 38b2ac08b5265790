"""PABEE, BEEM1 and PCEE-BERT: a list of classifiers on the backbone's pooler.

All three are one model class with other exit rules: after every layer the first token goes through
the one pooler of the backbone (dense and tanh), then through `classifiers.i`.

The released code knows BERT and ALBERT. For RoBERTa, whose own classification head is dense, tanh
and `out_proj` on the first token, `classifiers.i` may be such heads: a pooler for each exit.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from eefast.checkpoints.layout import Heads, Layout, own_pooler


def _heads(base: str, depth: int, keys: Collection[str]) -> Heads:
    names = [f"classifiers.{i}" for i in range(depth)]
    if "classifiers.0.out_proj.weight" in keys:
        return Heads(
            "pooler",
            tuple(f"{name}.dense" for name in names),
            tuple(f"{name}.out_proj" for name in names),
            unused=(own_pooler(base),),
        )
    return Heads("pooler", (own_pooler(base),), tuple(names))


LAYOUT = Layout(
    formats=("pabee", "beem1", "pcee"),
    mark=re.compile(r"^classifiers\."),
    bases=("bert", "albert", "roberta"),
    heads=_heads,
)
