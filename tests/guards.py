"""Guard pages: what an op reads or writes beyond its tensors or its memory ends the process."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_LIBC = ctypes.CDLL(None, use_errno=True)


def room(size: int) -> Tensor:
    """Bytes, all 0xff, that end where memory ends."""
    end = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, end + mmap.PAGESIZE)
    guard = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)) + end)
    assert _LIBC.mprotect(guard, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    if size == 0:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(memory, dtype=torch.uint8, count=size, offset=end - size).fill_(0xFF)


def guarded(tensor: Tensor) -> Tensor:
    """A copy, with the same strides, that ends where memory ends."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    count = 1 + sum((size - 1) * stride for size, stride in sizes) if tensor.numel() else 0
    copy = room(count * tensor.element_size()).view(tensor.dtype)
    copy.copy_(tensor.detach().as_strided((count,), (1,)))
    return copy.as_strided(tensor.shape, tensor.stride())


class _Guards(TorchDispatchMode):
    """Gives the ops of eefast guarded copies of all tensors."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op.namespace != "eefast":
            return op(*args, **(kwargs or {}))
        arguments = op._schema.arguments
        given = {a.name: x for a, x in zip(arguments, args, strict=False)} | (kwargs or {})
        copies = tree_map(lambda x: guarded(x) if isinstance(x, Tensor) else x, given)
        result = op(**copies)
        for argument in arguments:
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and given.get(argument.name) is not None:
                given[argument.name].copy_(copies[argument.name])
        return result


@contextlib.contextmanager
def guards() -> Iterator[None]:
    """Within it all that the ops of eefast read and write has a guard page behind it.

    Those are arguments, results, packed buffers that are made there, and the memory of a call. For
    a process of its own (`in_a_child`): it replaces two of PyTorch's kernels.
    """

    def new_empty(x: Tensor, size: Sequence[int], dtype: Any = None, *_: Any, **__: Any) -> Tensor:
        dtype = dtype or x.dtype
        return room(math.prod(size) * dtype.itemsize).view(dtype).view(size)

    def empty_like(x: Tensor, *_: Any, **__: Any) -> Tensor:
        return new_empty(x, x.shape)

    library = torch.library.Library("aten", "IMPL")
    library.impl("empty_like", empty_like, "CPU")
    library.impl("new_empty", new_empty, "CPU")
    torch.ops.eefast.cpp_guard_memory(True)
    with _Guards():
        yield


def in_a_child(body: Callable[[], None]) -> str:
    """How a copy of this process ended in which `body` ran: "well", or what went wrong."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)  # OpenMP's threads do not survive a fork: waiting hangs
            body()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return "well"
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with an error, {code}"
