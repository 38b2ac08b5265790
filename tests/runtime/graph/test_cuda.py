"""What the graph runtime asks of PyTorch and CUDA before it captures anything."""

import pytest
import torch

from eefast.runtime.graph import cuda
from eefast.runtime.graph.cuda import CudaGraphDevice, chosen_back_end, require_cuda


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
