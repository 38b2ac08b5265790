"""DeeBERT and BERxiT: a highway module behind every layer, inside the encoder.

A highway has a pooler of its own and a classifier. The last layer has one too, which training
leaves out; `classifier` on the backbone's own pooler answers there, and so does the last exit here.
(In DeeBERT's code the last highway answers too, if its entropy is low enough; in BERxiT's never.)

BERxiT adds `lte_classifier`, one linear layer and a sigmoid on what the highways' classifiers read,
shared by all. It gives an uncertainty: the code teaches it the exit's entropy, clamped to
[0.05, 0.95], or 1 for a wrong answer, and leaves below a threshold. Ours is a certainty, so both
signs change: 1 - sigmoid(w x + b) = sigmoid(-w x - b), and uncertainty < t is certainty > 1 - t.
Early revisions learned another module (`Qmodule_classifier`), for which there is no policy.

`classifier` may also be RoBERTa's own classification head: dense, tanh and `out_proj`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from eefast.checkpoints.layout import Heads, Layout, own_pooler


def _heads(base: str, depth: int, keys: Collection[str]) -> Heads:
    *highways, last = (f"{base}.encoder.highway.{i}" for i in range(depth))
    learned = f"{base}.encoder.lte_classifier"
    unused = [f"{last}.pooler.dense", f"{last}.classifier"]
    pooler, classifier = own_pooler(base), "classifier"
    if "classifier.out_proj.weight" in keys:
        unused.append(pooler)
        pooler, classifier = "classifier.dense", "classifier.out_proj"
    return Heads(
        "pooler",
        (*(f"{highway}.pooler.dense" for highway in highways), pooler),
        (*(f"{highway}.classifier" for highway in highways), classifier),
        learned if f"{learned}.weight" in keys else None,
        tuple(unused),
    )


LAYOUT = Layout(
    formats=("deebert", "berxit"),
    mark=re.compile(r"\.encoder\.highway\."),
    bases=("bert", "albert", "roberta"),
    heads=_heads,
    twins="core",  # BERxiT holds its backbone under two names
)
