"""Checkpoints of the papers' released code, read into a `MultiExitModel`.

What a layout calls the parts of an exit is a table of its own: `classifiers` (PABEE, BEEM1,
PCEE-BERT), `highway` (DeeBERT, BERxiT), `elasticbert`.
"""

from eefast.checkpoints.load import load_checkpoint

__all__ = ["load_checkpoint"]
