"""What a stand-in for CUDA graphs knows of the storages of CPU tensors: to which graph they belong.

Memory that a capture allocates belongs to its graph. It holds poison until a replay writes it, and
again as soon as the next replay starts or the graph is reset. A read in between raises if a
`Watch` is active; otherwise (in another thread, say) the poison shows.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HOST_READS = {
    # These do not reach the dispatcher with tensors of the CPU, or only as something harmless.
    *("numpy", "__array__", "__dlpack__", "tolist", "cpu", "__repr__", "__format__"),
    # These do, and are named here for a message in the words of the caller.
    *("item", "__bool__", "__int__", "__float__", "__index__", "__complex__", "__contains__"),
}

_WRITES_ONLY = {
    # In-place ops that do not read the old contents; and out= arguments, by the schema.
    *("copy_", "fill_", "zero_", "_foreach_copy_", "_foreach_zero_"),
    *("index_copy_", "index_put_", "_index_put_impl_", "scatter_"),
    *("bernoulli_", "normal_", "random_", "uniform_"),
}
FORM_ONLY = {
    # They ask a tensor for its shape and dtype.
    *("empty_like", "full_like", "ones_like", "rand_like", "randn_like", "zeros_like"),
    *("new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"),
}
_MAY_BE_UNWRITTEN = {"eefast::exit_step": {"logits"}}  # by the op's contract, of running samples


class GraphError(RuntimeError):
    """Something that a CUDA graph does not do, or that would give garbage on a GPU."""


class Refused(GraphError):  # noqa: N818
    """Something that cannot be captured."""


class Unwritten(GraphError):  # noqa: N818
    """A read of graph memory that was not written on the path taken."""


class Stale(GraphError):  # noqa: N818
    """A use of memory that has been freed."""


class _Thread(threading.local):
    graph: Any = None  # the one that captures
    busy = False  # with the stand-in's own work, which is not watched
    sets_number = False  # x[...] = 1 is under way


THREAD = _Thread()


@contextmanager
def unwatched() -> Iterator[None]:
    """The stand-in's own work."""
    before, THREAD.busy = THREAD.busy, True
    try:
        yield
    finally:
        THREAD.busy = before


class Memory:
    """One storage. It keeps a graph's own storage alive, and must not keep others alive."""

    def __init__(self, storage: torch.UntypedStorage, dtype: torch.dtype | None, user: str) -> None:
        """`dtype` is that of the poison of a graph's own memory, None for that of others."""
        self.nbytes = storage.nbytes()
        self.user = user  # the op that made it, or met it first
        self.written = False
        self.given_back = False
        self._dtype = dtype
        self._strong = None if dtype is None else storage
        self._weak = StorageWeakRef(storage)  # while it is held, no other storage gets the address

    @property
    def expired(self) -> bool:
        return self._weak.expired()

    def storage(self) -> torch.UntypedStorage:
        storage = self._strong or torch.UntypedStorage._new_with_weak_ptr(self._weak.cdata)
        if storage is None:
            raise Stale(
                f"stale buffer: a tensor of {self.nbytes} bytes, made before the capture and used "
                f"first by {self.user}, has been freed since; the graph would use its address"
            )
        return storage

    def poison(self) -> None:
        self.written = False
        values = torch.empty(0, dtype=self._dtype)
        values.set_(self.storage(), 0, (self.nbytes // values.element_size(),))
        values.fill_(_poison(self._dtype))

    def give_back(self) -> None:
        if not self.given_back:
            self.poison()
            self.given_back, self._strong = True, None

    def check_usable(self, user: str) -> None:
        if self.given_back:
            raise Stale(f"{user} uses memory of a graph that has been reset (of {self.user})")

    def check_readable(self, reader: str) -> None:
        self.check_usable(reader)
        if not self.written and self.nbytes:
            raise Unwritten(
                f"{reader} reads what {self.user} was to make room for or write, and nothing has "
                "written it on the path taken"
            )


def _poison(dtype: torch.dtype) -> Any:
    if dtype.is_floating_point or dtype.is_complex:
        return float("nan")
    return True if dtype == torch.bool else torch.iinfo(dtype).min or torch.iinfo(dtype).max


OWNED: dict[int, Memory] = {}
"""Memory of all graphs by its storage's address, given back or not, while a tensor shows it."""


def forget_expired() -> None:
    """Drop what no tensor uses any more."""
    for address in [address for address, memory in list(OWNED.items()) if memory.expired]:
        OWNED.pop(address, None)


def address_of(tensor: Tensor) -> int | None:
    """Of the tensor's storage; None if it has none (an opaque or a sparse tensor)."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None


def tensors_in(*values: Any) -> list[Tensor]:
    """All tensors in nested values."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Access(NamedTuple):
    """Which arguments an op reads and which it writes, by its schema."""

    reads: list[Tensor]
    writes: list[Tensor]
    views: bool  # a result shows an argument's memory, or may

    @classmethod
    def of(cls, func: Any, args: tuple, kwargs: dict) -> "Access":
        reads, writes = [], []
        schema = func._schema
        name = schema.name.removeprefix("aten::")
        spared = _MAY_BE_UNWRITTEN.get(schema.name, ())
        for number, argument in enumerate(schema.arguments):
            given = args[number] if number < len(args) else kwargs.get(argument.name)
            tensors = tensors_in(given)
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written:
                writes += tensors
            only = argument.is_out or name in _WRITES_ONLY or argument.name in spared
            if not (written and only) and name not in FORM_ONLY:
                reads += tensors
        views = any(
            made.alias_info is not None and not made.alias_info.is_write for made in schema.returns
        )
        return cls(reads, writes, views)


def memories_of(tensors: list[Tensor]) -> list[Memory]:
    """The graphs' memory among that of the tensors."""
    found = (OWNED.get(address_of(tensor)) for tensor in tensors)
    return [memory for memory in found if memory is not None]


def _run_watched(func: Any, args: tuple, kwargs: dict) -> Any:
    access = Access.of(func, args, kwargs)
    for memory in memories_of(access.reads + access.writes):
        memory.check_usable(str(func))
    if not access.views:
        for memory in memories_of(access.reads):
            memory.check_readable(str(func))
    result = func(*args, **kwargs)
    if access.views:  # making a view is no read, making a copy is
        shown = {address_of(tensor) for tensor in tensors_in(result)}
        copied = [tensor for tensor in access.reads if address_of(tensor) not in shown]
        for memory in memories_of(copied):
            memory.check_readable(str(func))
    for memory in memories_of(access.writes):
        memory.written = True
    return result


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if THREAD.busy:
            return func(*args, **kwargs)
        if THREAD.graph is not None:
            return THREAD.graph.record(self, func, args, kwargs)
        with unwatched():
            return _run_watched(func, args, kwargs)


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in HOST_READS and not THREAD.busy:
            if THREAD.graph is not None:
                THREAD.graph.refuse(f"{name}: the host reads a value")
            for memory in memories_of(tensors_in(args, kwargs)):
                memory.check_readable(name)
        before = THREAD.sets_number
        THREAD.sets_number = name == "__setitem__" and not isinstance(args[2], Tensor)
        try:
            return func(*args, **(kwargs or {}))
        finally:
            THREAD.sets_number = before


def watch() -> AbstractContextManager[Any]:
    """All operators of this thread inside are seen: recorded by its capture, or else watched."""
    modes = ExitStack()
    modes.enter_context(_Functions())
    modes.enter_context(_Operators())
    return modes
