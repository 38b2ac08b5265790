"""Stand-ins for CUDA graphs, on CPU tensors: what was recorded is done on replay, and only then.

`StandInGraph` has the calls of torch.cuda.CUDAGraph, `StandInDevice` is the graph runtime's device:

    device = StandInDevice()
    with device.watching():  # from here on this thread's reads of graph memory are checked
        capture = device.capture()
        with capture.recording():
            first(); flag = ...
            with capture.only_if(flag):
                second()
        with capture.turn():
            capture.replay()

They are stricter than CUDA. An operator that is captured writes poison into its results; a replay
starts with poison in all memory of the graph, and a read of what the path taken did not write
raises `Unwritten`. Whatever asks a GPU for a value or a shape raises `Refused`. A tensor made
before the capture must be alive at each replay, or `Stale` is raised: on a GPU its memory would be
something else's.

Not seen: `torch.utils.dlpack.to_dlpack` and `data_ptr` as ways to read memory; `.to("cpu")`, which
is `.to(device)` here; which part of a storage was written.
"""

from tests.runtime.graph.stand_in.device import StandInCapture, StandInDevice
from tests.runtime.graph.stand_in.memory import GraphError, Refused, Stale, Unwritten
from tests.runtime.graph.stand_in.recording import StandInGraph

__all__ = [
    "GraphError",
    "Refused",
    "Stale",
    "StandInCapture",
    "StandInDevice",
    "StandInGraph",
    "Unwritten",
]
