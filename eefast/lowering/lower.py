"""`lower`: the seam between a model's own layers and layers that are made for speed."""

from __future__ import annotations

from eefast.backbones import Backbone


def lower(backbone: Backbone) -> Backbone:
    """The fastest backbone there is that computes what `backbone` computes.

    `eefast.compile` asks once, and again after each move to another device or precision; runtimes
    then drive what they are given. Today that is `backbone` itself.
    """
    return backbone
