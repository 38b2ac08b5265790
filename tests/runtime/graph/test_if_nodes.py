"""The two ways to make IF nodes: what they ask of PyTorch and of CUDA, and in which order."""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest
import torch

from eefast.runtime.graph import if_nodes
from eefast.runtime.graph.if_nodes import BindingsIfNodes, torch_if_node

cudart = pytest.importorskip("cuda.bindings.runtime")
SUCCESS, FAILURE = cudart.cudaError_t.cudaSuccess, cudart.cudaError_t.cudaErrorInvalidValue
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="the functions are called with what no driver may get"
)
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
    """CUDA's functions without a device: the real package's take the arguments, this one answers.

    Args:
        numbered: as in CUDA 12, where the versions with edges have numbers.
    """

    HANDLE = (1 << 63) + 5  # a handle is unsigned
    STREAM, BODY_STREAM = 7, 8
    GRAPH, BEHIND = cudart.cudaGraph_t(), [cudart.cudaGraphNode_t()] * 2
    WITH_EDGES = {  # noqa: RUF012
        "cudaStreamGetCaptureInfo": "_v3",
        "cudaGraphAddNode": "_v2",
        "cudaStreamUpdateCaptureDependencies": "_v2",
    }
    RESULTS = {  # noqa: RUF012
        "cudaStreamGetCaptureInfo": ("status", 1, GRAPH, BEHIND, ["edges"] * 2, 2),
        "cudaGraphConditionalHandleCreate": (cudart.cudaGraphConditionalHandle(HANDLE),),
        "cudaGraphAddNode": (cudart.cudaGraphNode_t(),),
        "cudaStreamUpdateCaptureDependencies": (),
        "cudaStreamBeginCaptureToGraph": (),
        "cudaStreamEndCapture": (GRAPH,),
    }

    def __init__(self, monkeypatch, numbered):
        self.asked = []
        self.fails = None
        self._numbered = numbered
        self.streams = [SimpleNamespace(cuda_stream=self.STREAM)]
        cuda = if_nodes.torch.cuda
        monkeypatch.setattr(if_nodes, "cudart", self)
        monkeypatch.setattr(cuda, "current_stream", lambda *_: self.streams[-1])
        monkeypatch.setattr(cuda, "stream", self.on)

    @contextmanager
    def on(self, stream):
        self.streams.append(stream)
        try:
            yield
        finally:
            self.streams.pop()

    def nodes(self):
        return BindingsIfNodes(SimpleNamespace(cuda_stream=self.BODY_STREAM))

    def __getattr__(self, name):
        plain, _, version = name.partition("_v")
        if plain not in self.RESULTS:
            return getattr(cudart, name)
        asked_for = self.WITH_EDGES.get(plain, "") if self._numbered else ""
        if version and name != plain + self.WITH_EDGES.get(plain, ""):
            pytest.fail(f"{name}: what it takes is not known")  # newer ones take other arguments
        if name != plain + asked_for and (version or plain in self.WITH_EDGES):
            raise AttributeError(name)

        def function(*args):
            real = plain + self.WITH_EDGES.get(plain, "")  # of whichever version is installed
            real = real if hasattr(cudart, real) else plain
            error, *_ = getattr(cudart, real)(*args)  # there is no driver
            assert error == cudart.cudaError_t.cudaErrorInsufficientDriver
            self.asked.append((plain, args))
            return (FAILURE if self.fails == plain else SUCCESS, *self.RESULTS[plain])

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
    nodes, handle = driver.nodes(), torch.zeros((), dtype=torch.int64)
    with nodes.node(FLAG, handle):
        assert driver.order == NODE
        assert driver.streams[-1].cuda_stream == driver.BODY_STREAM
    assert driver.order == [*NODE, "cudaStreamEndCapture"]
    assert driver.streams[-1].cuda_stream == driver.STREAM
    asked = dict(driver.asked)
    graph, behind, edges, count, node = asked["cudaGraphAddNode"]
    assert (graph, behind, len(edges), count) == (driver.GRAPH, driver.BEHIND, 2, 2)
    assert node.type == cudart.cudaGraphNodeType.cudaGraphNodeTypeConditional
    assert node.conditional.type == cudart.cudaGraphConditionalNodeType.cudaGraphCondTypeIf
    assert (int(node.conditional.handle), node.conditional.size) == (driver.HANDLE, 1)
    assert asked["cudaStreamUpdateCaptureDependencies"][0] == driver.STREAM
    assert asked["cudaStreamBeginCaptureToGraph"][0] == driver.BODY_STREAM
    assert asked["cudaStreamEndCapture"] == (driver.BODY_STREAM,)


def test_the_exit_step_is_told_the_handle_that_it_sets(driver):
    nodes, handle = driver.nodes(), torch.zeros((), dtype=torch.int64)
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
    with driver.nodes().node(FLAG, None):
        pass
    assert set_from == [(FLAG, driver.HANDLE - (1 << 64))]


END, BEGIN = "cudaStreamEndCapture", "cudaStreamBeginCaptureToGraph"


def test_an_inner_body_follows_the_outer_one_on_the_same_stream(driver):
    nodes = driver.nodes()
    with nodes.node(FLAG, FLAG), nodes.node(FLAG, FLAG), nodes.node(FLAG, FLAG):
        pass
    assert driver.order == [*NODE, *(*NODE[:-1], END, BEGIN) * 2, END]
    # Each inner node was added where the outer body was captured.
    assert [args[0] for name, args in driver.asked if name == NODE[0]] == [7, 7, 8, 8, 8, 8]
    assert driver.streams[-1].cuda_stream == driver.STREAM


def test_one_node_behind_another(driver):
    nodes = driver.nodes()
    for _ in range(2):
        with nodes.node(FLAG, FLAG):
            pass
    assert driver.order == [*NODE, END] * 2
    assert {args[0] for name, args in driver.asked if name == NODE[0]} == {driver.STREAM}


@pytest.mark.parametrize("depth", [1, 3])
def test_a_body_ends_whatever_happens(driver, depth):
    nodes = driver.nodes()

    def interrupted():
        with ExitStack() as open_nodes:
            for _ in range(depth):
                open_nodes.enter_context(nodes.node(FLAG, FLAG))
            driver.fails = END  # which is not what went wrong
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert driver.order.count(END) == driver.order.count(BEGIN) == depth
    assert driver.streams[-1].cuda_stream == driver.STREAM


@pytest.mark.parametrize("name", sorted(set(NODE)))
def test_what_cuda_refuses_is_said(driver, name):
    driver.fails = name
    with (
        pytest.raises(RuntimeError, match=f"{name}: invalid argument"),
        driver.nodes().node(FLAG, FLAG),
    ):
        pass


def test_what_is_missing(monkeypatch):
    monkeypatch.setattr(if_nodes, "has_cuda", lambda: True)
    assert BindingsIfNodes.missing() is None
    monkeypatch.setattr(if_nodes, "has_cuda", lambda: False)
    assert "extension built with CUDA" in BindingsIfNodes.missing()
    monkeypatch.setattr(if_nodes, "cudart", None)
    assert "the package cuda-bindings" in BindingsIfNodes.missing()
