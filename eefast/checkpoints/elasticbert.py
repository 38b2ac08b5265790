"""ElasticBERT: BERT's layers under another name, with a pooler per layer inside the encoder.

That is the released code's dynamic fine-tuning: `encoder.pooler.i` and `classifiers.i` for every
layer. A model made without pooling layers has none: its classifiers read the first token itself.
(Static fine-tuning has the last layer's `classifier` only, so no exits.)
"""

from __future__ import annotations

import re
from collections.abc import Collection

from eefast.checkpoints.layout import Heads, Layout


def _heads(base: str, depth: int, keys: Collection[str]) -> Heads:
    classifiers = tuple(f"classifiers.{i}" for i in range(depth))
    if not any(key.startswith(f"{base}.encoder.pooler.") for key in keys):
        return Heads("linear", (), classifiers)
    poolers = tuple(f"{base}.encoder.pooler.{i}.dense" for i in range(depth))
    return Heads("pooler", poolers, classifiers)


LAYOUT = Layout(
    formats=("elasticbert",),
    mark=re.compile(r"^classifiers\.|\.encoder\.pooler\."),
    bases=("elasticbert",),
    heads=_heads,
)
