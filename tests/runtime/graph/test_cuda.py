"""What the graph runtime asks of PyTorch and CUDA before it captures anything."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from eefast.runtime.graph import cuda
from eefast.runtime.graph.cuda import (
    BindingsCapture,
    CudaGraphDevice,
    TorchCapture,
    chosen_back_end,
    require_cuda,
)


@pytest.mark.parametrize(("version", "driver"), [("12.4", 12040), ("13.0", None), ("12.10", 13000)])
def test_new_enough(version, driver):
    require_cuda(version, driver)


@pytest.mark.parametrize(
    ("version", "driver", "message"),
    [
        (None, None, "this torch is built without CUDA"),
        ("12.1", 12040, "this torch is built with CUDA 12.1"),
        ("11.8", 13000, "this torch is built with CUDA 11.8"),
        ("13.0", 12020, "the driver is made for CUDA 12.2"),
    ],
)
def test_too_old(version, driver, message):
    with pytest.raises(
        RuntimeError, match=f"need CUDA 12.4 or newer, {message}; runtime='runahead'"
    ):
        require_cuda(version, driver)


@pytest.fixture
def there(monkeypatch):
    """Sets which of the two ways to make IF nodes are there."""

    def set_there(torch_there, bindings_missing):
        monkeypatch.setattr(cuda, "torch_has_if_nodes", lambda: torch_there)
        monkeypatch.setattr(cuda.BindingsIfNodes, "missing", lambda: bindings_missing)

    return set_there


@pytest.mark.parametrize(
    ("torch_there", "bindings_missing", "asked", "chosen"),
    [
        (True, None, "auto", "torch"),
        (True, "a package", "auto", "torch"),
        (False, None, "auto", "bindings"),
        (True, None, "bindings", "bindings"),
        (True, None, "torch", "torch"),
    ],
)
def test_the_back_end(there, torch_there, bindings_missing, asked, chosen):
    there(torch_there, bindings_missing)
    assert chosen_back_end(asked) == chosen


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "auto",
            r"needs torch 2.13 or newer \(back_end='torch'\) or a package \(back_end='bindings'\)",
        ),
        ("torch", "needs torch 2.13 or newer"),
        ("bindings", "needs a package"),
    ],
)
def test_a_back_end_that_is_not_there_is_not_replaced(there, asked, message):
    there(False, "a package")
    with pytest.raises(RuntimeError, match=message):
        chosen_back_end(asked)


def test_an_unknown_back_end():
    with pytest.raises(ValueError, match="back_end must be 'auto', 'torch' or 'bindings', got 'x'"):
        chosen_back_end("x")


@pytest.mark.skipif(torch.version.cuda is not None, reason="a torch with CUDA")
def test_without_cuda_it_is_said_before_anything_is_captured():
    with pytest.raises(RuntimeError, match="this torch is built without CUDA"):
        CudaGraphDevice(torch.device("cuda"), "auto")


class FakeCuda:
    """torch.cuda's streams, pools and graphs without a device; logs their calls in order."""

    def __init__(self, monkeypatch):
        fake = self
        fake.asked, fake.pools, fake.fails = [], [], False
        fake.streams = [SimpleNamespace(name="caller", wait_event=self.note("wait event"))]

        class Pool:
            def __init__(self):
                self.users, self.id = 1, (0, len(fake.pools))
                fake.pools.append(self)

            def use_count(self):
                return self.users

        class Graph:
            replay, reset = fake.note("replay"), fake.note("reset")

        @contextmanager
        def graph(captured, pool=None, stream=None, capture_error_mode="global"):
            fake.streams.append(stream)
            fake.asked.append("begin")
            try:
                yield
            finally:
                fake.asked.append("end")
                if fake.fails:
                    raise RuntimeError(
                        "the capture is spoiled"
                    )  # and PyTorch does not restore the stream
                fake.streams.pop()

        @contextmanager
        def on(stream):
            before = list(fake.streams)
            fake.streams.append(stream)
            try:
                yield
            finally:
                fake.streams[:] = before

        def release(device, pool):
            assert device == 3
            fake.pools[pool[1]].users -= 1

        def event():
            return SimpleNamespace(record=fake.note("record"), synchronize=fake.note("wait"))

        for name, value in {
            "MemPool": Pool, "CUDAGraph": Graph, "graph": graph, "Event": event,
            "stream": on,
            "device": lambda _: nullcontext(), "use_mem_pool": lambda *_: nullcontext(),
            "current_stream": lambda *_: fake.streams[-1],
            "set_stream": lambda s: fake.asked.append("back on the capture's stream"),
            "memory_snapshot": lambda pool: [{"total_size": 10}, {"total_size": pool[1]}],
        }.items():  # fmt: skip
            monkeypatch.setattr(cuda.torch.cuda, name, value)
        for name, value in {
            "_cuda_clearCublasWorkspaces": fake.note("clear"),
            "_cuda_endAllocateToPool": fake.note("end of pool"),
            "_cuda_releasePool": release,
        }.items():
            monkeypatch.setattr(cuda.torch._C, name, value, raising=False)
        monkeypatch.setattr(cuda, "torch_has_if_nodes", lambda: True)
        monkeypatch.setattr(cuda, "_spoiled", [])
        monkeypatch.setattr(cuda, "_dropped", [])
        self.stream = SimpleNamespace(device=torch.device("cuda", 3), device_index=3)

    def note(self, what):
        return lambda *_: self.asked.append(what)


@pytest.fixture
def fake(monkeypatch):
    return FakeCuda(monkeypatch)


def captures(fake):
    return TorchCapture(fake.stream), BindingsCapture(fake.stream, fake.stream)


def test_workspaces_are_the_graph_s_own(fake):
    for capture in captures(fake):
        fake.asked.clear()
        with capture.recording():
            fake.asked.append("work")
        assert fake.asked == ["clear", "begin", "work", "end", "clear"]
        assert len(fake.streams) == 1


@pytest.mark.parametrize("spoiled", [False, True])
def test_after_a_failure_the_caller_has_his_stream_and_pytorch_its_order(fake, spoiled):
    for capture in captures(fake):
        fake.asked.clear()
        fake.fails = spoiled
        said = "spoiled" if spoiled else "a layer"
        with pytest.raises(RuntimeError, match=said), capture.recording():
            raise RuntimeError("a layer")
        fake.fails = False
        back = ["back on the capture's stream", "end", "end of pool"]
        assert fake.asked[:5] == ["clear", "begin", *back]
        assert fake.asked[-1] == "clear"
        assert [stream.name for stream in fake.streams] == ["caller"]
        assert cuda._spoiled[-1] is capture._graph


def test_turns_follow_one_another_even_if_one_fails(fake):
    capture, _ = captures(fake)
    with capture.turn():
        capture.replay()
    with pytest.raises(KeyboardInterrupt), capture.turn():
        raise KeyboardInterrupt
    assert fake.asked == ["wait event", "replay", "record", "wait event", "record"]


def test_what_is_closed_gives_all_its_pools_back(fake):
    plain, with_bodies = captures(fake)
    assert (plain.reserved_bytes, with_bodies.reserved_bytes) == (10, 10 + 1 + 10 + 2)
    for pool in fake.pools:
        pool.users = 25  # as after a dozen nodes
    for capture in (plain, with_bodies):
        fake.asked.clear()
        capture.close()
        assert fake.asked == ["wait", "reset"]
        assert capture.reserved_bytes == 0
        capture.close()
    assert [pool.users for pool in fake.pools] == [1, 1, 1]


def test_what_was_never_closed_is_given_back_where_no_capture_is_under_way(fake):
    for capture in captures(fake):
        capture.close()
    fake.asked.clear()
    dropped = TorchCapture(fake.stream)
    fake.pools[-1].users = 3
    del dropped
    assert fake.asked == ["reset"]
    assert fake.pools[-1].users == 3
    capture, _ = captures(fake)
    with capture.recording():
        assert fake.pools[3].users == 1
    assert cuda._dropped == []
