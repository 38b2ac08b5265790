"""The graph runtime, for CUDA: a call is one launch of a graph that decides for itself."""

from eefast.runtime.graph.runtime import GraphRuntime

__all__ = ["GraphRuntime"]
