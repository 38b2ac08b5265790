"""The two ways to make IF nodes: what they ask of PyTorch and of CUDA, and in which order."""

import inspect
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from eefast.runtime.graph import if_nodes
from eefast.runtime.graph.if_nodes import BindingsIfNodes, torch_if_node

cudart = pytest.importorskip("cuda.bindings.runtime")
SUCCESS, FAILURE = cudart.cudaError_t.cudaSuccess, cudart.cudaError_t.cudaErrorInvalidValue
FLAG = torch.ones((), dtype=torch.bool)


class TorchGraph:
    def __init__(self):
        self.asked = []

    def begin_capture_to_if_node(self, flag):
        self.asked.append(flag)

    def end_capture_to_conditional_node(self):
        self.asked.append("end")


def test_torch_is_told_where_a_body_begins_and_ends():
    graph = TorchGraph()
    with torch_if_node(graph, FLAG):
        graph.asked.append("work")
    assert graph.asked == [FLAG, "work", "end"]


def test_torch_is_told_of_the_end_whatever_happens():
    graph = TorchGraph()
    with pytest.raises(KeyboardInterrupt), torch_if_node(graph, FLAG):
        raise KeyboardInterrupt
    assert graph.asked == [FLAG, "end"]


class Driver:
    """CUDA's functions, with the signatures and structures of the real package, on no device."""

    HANDLE = (1 << 63) + 5  # a handle is unsigned

    def __init__(self, monkeypatch, numbered=False):
        self.asked = []
        self.streams = []
        self.fails = None
        self._numbered = numbered
        monkeypatch.setattr(if_nodes, "cudart", self)
        monkeypatch.setattr(if_nodes.torch.cuda, "current_stream", lambda *_: self.streams[-1])
        monkeypatch.setattr(
            if_nodes.torch.cuda, "Stream", lambda *_: SimpleNamespace(cuda_stream=8)
        )
        monkeypatch.setattr(if_nodes.torch.cuda, "stream", lambda stream: self.on(stream))
        self.streams.append(SimpleNamespace(cuda_stream=7))

    @contextmanager
    def on(self, stream):
        self.streams.append(stream)
        try:
            yield
        finally:
            self.streams.pop()

    def __getattr__(self, name):
        plain, _, version = name.partition("_v")
        results = {
            "cudaStreamGetCaptureInfo": ("status", 1, "graph", ["node"], ["edge"], 1),
            "cudaGraphConditionalHandleCreate": (cudart.cudaGraphConditionalHandle(self.HANDLE),),
            "cudaGraphAddNode": ("if node",),
            "cudaStreamUpdateCaptureDependencies": (),
            "cudaStreamBeginCaptureToGraph": (),
            "cudaStreamEndCapture": ("body",),
        }
        if plain not in results:
            return getattr(cudart, name)
        has_versions = plain in ("cudaStreamGetCaptureInfo", "cudaGraphAddNode",
                                 "cudaStreamUpdateCaptureDependencies")  # fmt: skip
        if bool(version) != (self._numbered and has_versions):
            raise AttributeError(name)

        def function(*args):
            inspect.signature(getattr(cudart, plain)).bind(*args)
            self.asked.append((plain, args))
            error = FAILURE if self.fails == plain else SUCCESS
            return (error, *results[plain])

        return function

    @property
    def order(self):
        """The functions called, without their versions."""
        return [name for name, _ in self.asked]


NODE = [
    "cudaStreamGetCaptureInfo",
    "cudaGraphConditionalHandleCreate",
    "cudaStreamGetCaptureInfo",
    "cudaGraphAddNode",
    "cudaStreamUpdateCaptureDependencies",
    "cudaStreamBeginCaptureToGraph",
]


@pytest.fixture(params=[False, True], ids=["CUDA 13", "CUDA 12"])
def driver(request, monkeypatch):
    return Driver(monkeypatch, request.param)


def test_a_node_of_cuda_s_own(driver):
    nodes, handle = BindingsIfNodes(), torch.zeros((), dtype=torch.int64)
    with nodes.node(FLAG, handle):
        assert driver.order == NODE
        assert driver.streams[-1].cuda_stream == 8  # the body is captured on another stream
    assert driver.order == [*NODE, "cudaStreamEndCapture"]
    assert driver.streams[-1].cuda_stream == 7
    asked = dict(driver.asked)
    graph, behind, edges, count, node = asked["cudaGraphAddNode"]
    assert (graph, behind, edges, count) == ("graph", ["node"], None, 1)
    assert node.type == cudart.cudaGraphNodeType.cudaGraphNodeTypeConditional
    assert node.conditional.type == cudart.cudaGraphConditionalNodeType.cudaGraphCondTypeIf
    assert (int(node.conditional.handle), node.conditional.size) == (driver.HANDLE, 1)
    assert asked["cudaStreamUpdateCaptureDependencies"][:2] == (7, ["if node"])
    assert asked["cudaStreamBeginCaptureToGraph"][0] == 8
    assert asked["cudaStreamEndCapture"] == (8,)


def test_the_exit_step_is_told_the_handle_that_it_sets(driver):
    nodes, handle = BindingsIfNodes(), torch.zeros((), dtype=torch.int64)
    with nodes.node(FLAG, handle):
        pass
    assert handle == 0  # nothing may be written while a graph is being captured
    nodes.tell_handles()
    assert handle.item() == driver.HANDLE - (1 << 64)  # the same 64 bits


def test_otherwise_a_kernel_reads_the_flag(driver, monkeypatch):
    set_from = []
    monkeypatch.setattr(
        if_nodes.torch.ops, "eefast", SimpleNamespace(set_conditional=lambda *a: set_from.append(a))
    )
    with BindingsIfNodes().node(FLAG, None):
        pass
    assert set_from == [(FLAG, driver.HANDLE - (1 << 64))]


def test_nodes_nest(driver):
    nodes = BindingsIfNodes()
    with nodes.node(FLAG, FLAG), nodes.node(FLAG, FLAG):
        pass
    assert driver.order == [*NODE, *NODE, "cudaStreamEndCapture", "cudaStreamEndCapture"]


def test_a_body_ends_whatever_happens(driver):
    with pytest.raises(KeyboardInterrupt), BindingsIfNodes().node(FLAG, FLAG):
        raise KeyboardInterrupt
    assert driver.order[-1] == "cudaStreamEndCapture"
    assert driver.streams[-1].cuda_stream == 7


@pytest.mark.parametrize("name", sorted(set(NODE)))
def test_what_cuda_refuses_is_said(driver, name):
    driver.fails = name
    with (
        pytest.raises(RuntimeError, match=f"{name}: invalid argument"),
        BindingsIfNodes().node(FLAG, FLAG),
    ):
        pass


def test_what_is_missing(monkeypatch):
    monkeypatch.setattr(if_nodes, "has_cuda", lambda: True)
    assert BindingsIfNodes.missing() is None
    monkeypatch.setattr(if_nodes, "has_cuda", lambda: False)
    assert "extension built with CUDA" in BindingsIfNodes.missing()
    monkeypatch.setattr(if_nodes, "cudart", None)
    assert "the package cuda-bindings" in BindingsIfNodes.missing()
