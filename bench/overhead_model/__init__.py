"""Computes what sync, run-ahead and graph cost as layers get faster. It measures nothing.

    python -m bench.overhead_model > docs/overhead_model.md

A discrete-event simulation of two actors. The host enqueues kernels, each at a cost; the GPU runs
them in order, with a gap between two; the host waits where the runtime does. To hold the model
against a GPU, replace its constants by what was measured there:

    here = dataclasses.replace(PUBLISHED, op_us=4.1, node_us=1.7)
    call_us("graph", layers=12, layer_us=56, kernels_per_layer=4, exit_layer=6, constants=here)
"""

from bench.overhead_model.constants import PUBLISHED, Constants
from bench.overhead_model.simulation import CallCost, Runtime, call_us, mean_us

__all__ = ["PUBLISHED", "CallCost", "Constants", "Runtime", "call_us", "mean_us"]
