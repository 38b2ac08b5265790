"""`StandInGraph`: torch.cuda.CUDAGraph's calls on CPU tensors; see the package."""

import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from tests.runtime.graph.stand_in.memory import (
    FORM_ONLY,
    OWNED,
    THREAD,
    Access,
    GraphError,
    Memory,
    Refused,
    address_of,
    forget_expired,
    memories_of,
    tensors_in,
    unwatched,
    watch,
)

_ROOM = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "empty_permuted")
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
_OF_OTHER_OPS = torch._C.DispatchKey.CompositeExplicitAutograd
_NUMBER = torch.ops.aten.scalar_tensor.default
_MOVING = ("set_", "resize_", "resize_as_")


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor of the recording: where it lies, without keeping that alive."""

    memory: Memory
    dtype: torch.dtype
    offset: int
    shape: torch.Size
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor, memory: Memory) -> "_View":
        return cls(memory, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride())

    def tensor(self, storage: torch.UntypedStorage | None = None) -> Tensor:
        storage = self.memory.storage() if storage is None else storage
        made = torch.empty(0, dtype=self.dtype)
        return made.set_(storage, self.offset, self.shape, self.stride)


class _Op(NamedTuple):
    func: Any
    args: tuple  # tensors as _View
    kwargs: dict
    made: list[_View | None]  # of the tensors among its results; None: an argument's memory


class _If(NamedTuple):
    flag: _View
    body: list


_begin_end = threading.Lock()
_capturing: list["StandInGraph"] = []


class StandInGraph:
    """The calls of torch.cuda.CUDAGraph (torch 2.13).

    Attributes:
        if_nodes, depth: how many IF nodes were captured, and how deep they nest.
        replays: how often the graph was replayed.
        bodies_run, operators_run: what the last replay executed.
        nbytes: what the capture allocated and the graph holds.
    """

    def __init__(self) -> None:
        self.if_nodes = self.depth = self.replays = 0
        self.bodies_run = self.operators_run = 0
        self._clear()

    def _clear(self) -> None:
        self._program: list | None = None
        self._open: list[list] = []  # the program and the bodies being captured, innermost last
        self._own: list[Memory] = []
        self._others: dict[int, Memory] = {}
        self._broken: str | None = None

    @property
    def nbytes(self) -> int:
        return sum(memory.nbytes for memory in self._own)

    @classmethod
    def get_currently_capturing_graph(cls) -> "StandInGraph":
        """That of this thread."""
        if THREAD.graph is None:
            raise GraphError("get_currently_capturing_graph: nothing is being captured")
        return THREAD.graph

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        with _begin_end:
            others = capture_error_mode == "global" and _capturing
            if THREAD.graph is not None or others:
                raise GraphError("capture_begin: another capture is under way")
            if self._program is not None or self._open or self._own:
                raise GraphError("capture_begin: this graph has been captured already")
            _capturing.append(self)
        forget_expired()
        self._open = [[]]
        THREAD.graph = self
        self._modes = watch()

    def capture_end(self) -> None:
        self._must_capture("capture_end")
        nodes, broken, program = len(self._open) - 1, self._broken, self._open[0]
        self.abandon()
        if broken:
            raise Refused(f"capture_end: the capture became invalid before ({broken})")
        if nodes:
            raise GraphError(f"capture_end: {nodes} IF nodes are still open")
        self._program = program

    def abandon(self) -> None:
        """End a capture that has failed."""
        self._must_capture("abandon")
        self._modes.close()
        self._open, THREAD.graph = [], None
        _capturing.remove(self)

    def begin_capture_to_if_node(self, pred: Tensor) -> None:
        self._must_capture("begin_capture_to_if_node")
        if not isinstance(pred, Tensor) or pred.dtype != torch.bool or pred.dim() != 0:
            got = f"{pred.dtype} of shape {list(pred.shape)}" if isinstance(pred, Tensor) else pred
            self.refuse(f"begin_capture_to_if_node: pred must be a bool scalar, got {got}")
        node = _If(self._view(pred, "begin_capture_to_if_node", self._others), [])
        self._open[-1].append(node)
        self._open.append(node.body)
        self.if_nodes += 1
        self.depth = max(self.depth, len(self._open) - 1)

    def end_capture_to_conditional_node(self) -> None:
        self._must_capture("end_capture_to_conditional_node")
        if len(self._open) < 2:
            self.refuse("end_capture_to_conditional_node: no node is open")
        self._open.pop()

    def replay(self) -> None:
        if THREAD.graph is not None:
            THREAD.graph.refuse("replay: a capture is under way")
        if self._program is None:
            raise GraphError("replay: no capture came to its end, or the graph was reset since")
        # The device's work is not the host's: modes that count reads, and autocast, must not see
        # it.
        with (
            torch.inference_mode(),
            torch.autocast("cpu", enabled=False),
            unwatched(),
            torch._C.DisableTorchFunction(),
        ):
            for memory in self._others.values():
                memory.storage()  # raises if it is gone
            for memory in self._own:
                memory.poison()
            self.replays += 1
            self.bodies_run = self.operators_run = 0
            self._run(self._program)

    def reset(self) -> None:
        if self._open:
            raise GraphError("reset: the capture is under way")
        with torch.inference_mode(), unwatched():
            for memory in self._own:
                memory.give_back()
        self._clear()

    def __del__(self) -> None:
        if self._own and not self._open:
            self.reset()

    def refuse(self, why: str) -> None:
        """As on CUDA, the capture is invalid from here on, even if the error is caught."""
        self._broken = self._broken or why
        raise Refused(f"while a graph is captured: {why}")

    def _must_capture(self, call: str) -> None:
        if THREAD.graph is not self:
            raise GraphError(f"{call}: this graph is not being captured by this thread")

    def record(self, mode: Any, func: Any, args: tuple, kwargs: dict) -> Any:
        """Record an operator; its results are there, and hold poison."""
        if func._can_decompose():  # in inference mode they arrive here in one piece
            with mode:
                return func.decompose(*args, **kwargs)
        if func.namespace != "aten" and _is_of_other_ops(func):  # a library's, in Python
            with mode:
                return func._op_dk(_OF_OTHER_OPS, *args, **kwargs)
        with unwatched():
            if THREAD.sets_number and _name(func) == "lift_fresh" and not args[0].dim():
                # What x[0] = 1 does on the CPU; for a GPU the number is an argument of a kernel.
                number, dtype = args[0].item(), args[0].dtype
                func, args, kwargs = _NUMBER, (number,), {"dtype": dtype}
            self._check(func, args, kwargs)
            return self._record(func, args, kwargs)

    def _check(self, func: Any, args: tuple, kwargs: dict) -> None:
        name = _name(func)
        if torch.Tag.data_dependent_output in func.tags:
            self.refuse(f"{func}: the host reads a value")
        masks = (torch.bool, torch.uint8)
        if name in _INDEXING:
            if any(index.dtype in masks for index in tensors_in(args[1])):
                self.refuse(f"{func} with a mask: the host reads how many elements it selects")
        elif torch.Tag.dynamic_output_shape in func.tags:
            self.refuse(f"{func}: the host reads how many elements there are")
        if name == "lift_fresh":  # torch.tensor, from_numpy, a list as an index
            self.refuse(f"{func}: values are copied from the host, which waits for it")
        if name in _MOVING:
            self.refuse(f"{func}: a recorded tensor would get other memory")
        if len(self._open) > 1 and _draws(func, args, kwargs):
            self.refuse(f"{func}: random numbers in the body of an IF node")
        for memory in memories_of(tensors_in(args, kwargs)):
            memory.check_usable(str(func))

    def _record(self, func: Any, args: tuple, kwargs: dict) -> Any:
        name = str(func)
        met: dict[int, Memory] = {}
        views = tree_map_only(Tensor, lambda given: self._view(given, name, met), (args, kwargs))
        results, theirs, doubles = _rehearse(func, *views)
        if _name(func) in FORM_ONLY:
            views = doubles
        shown = tensors_in(results)
        writes = any(a.alias_info is not None and a.alias_info.is_write for a in _arguments(func))
        if shown and not writes and all(address_of(made) in theirs for made in shown):
            return func(*args, **kwargs)  # the same memory seen in another way: no work
        own: dict[int | None, Memory] = {}
        for made in shown:
            address = address_of(made)
            if address not in theirs and address not in own:
                own[address] = Memory(made.untyped_storage(), made.dtype, name)
                own[address].poison()
        OWNED.update(own)
        self._own += own.values()
        if _name(func) not in _ROOM:
            made = [_View.of(t, own[a]) if (a := address_of(t)) in own else None for t in shown]
            self._open[-1].append(_Op(func, *views, made))
            if views is not doubles:
                self._others.update(met)
        given = dict(zip(map(id, tensors_in(doubles)), tensors_in(args, kwargs), strict=True))

        def as_given(made: Tensor) -> Tensor:
            memory = theirs.get(address_of(made))
            if memory is None:
                return made
            return given[id(made)] if id(made) in given else _View.of(made, memory).tensor()

        return tree_map_only(Tensor, as_given, results)

    def _run(self, program: list) -> None:
        for step in program:
            if isinstance(step, _If):
                flag = step.flag.tensor()
                for memory in memories_of([flag]):
                    memory.check_readable("the condition of an IF node")
                if flag:
                    self.bodies_run += 1
                    self._run(step.body)
                continue
            self.operators_run += 1
            func = step.func
            args, kwargs = tree_map_only(_View, _View.tensor, (step.args, step.kwargs))
            access = Access.of(func, args, kwargs)
            for memory in memories_of(access.reads):
                memory.check_readable(str(func))
            results = tensors_in(func(*args, **kwargs))
            for result, view in zip(results, step.made, strict=True):
                if view is not None:
                    if result.shape != view.shape:
                        raise GraphError(f"{func}: its result depends on values in its shape")
                    view.tensor().copy_(result)
                    view.memory.written = True
            for memory in memories_of(access.writes):
                memory.written = True

    def _view(self, tensor: Tensor, user: str, met: dict[int, Memory]) -> Any:
        """What to record of a tensor; memory that is new to the graph is added to `met`."""
        address = address_of(tensor)
        if address is None:
            return tensor  # packed weights and the like
        memory = OWNED.get(address) or self._others.get(address) or met.get(address)
        if memory is None:
            memory = met[address] = Memory(tensor.untyped_storage(), None, user)
        return _View.of(tensor, memory)


def _name(func: Any) -> str:
    return func._schema.name.removeprefix("aten::")


def _arguments(func: Any) -> list[Any]:
    return func._schema.arguments


def _is_of_other_ops(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _OF_OTHER_OPS)


def _draws(func: Any, args: tuple, kwargs: dict) -> bool:
    """Whether an op draws random numbers."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    given = {a.name: a.default_value for a in _arguments(func) if a.has_default_value()}
    given.update(zip((a.name for a in _arguments(func)), args, strict=False))
    given.update(kwargs)
    return given.get("dropout_p") != 0 and given.get("train") is not False


def _rehearse(func: Any, args: tuple, kwargs: dict) -> tuple[Any, dict[int, Memory], tuple]:
    """What an op returns for arguments of this form, values aside.

    Zeros are valid indices, ones are valid divisors.

    Returns:
        the results; the memory that each storage of its arguments stood for; these arguments
    """
    for value in (0, 1):
        storages: dict[Memory, torch.UntypedStorage] = {}

        def double(view: _View, storages=storages, value=value) -> Tensor:
            if view.memory not in storages:
                elements = -(-view.memory.nbytes // view.dtype.itemsize)
                values = torch.full((elements,), value, dtype=view.dtype)
                storages[view.memory] = values.untyped_storage()
            return view.tensor(storages[view.memory])

        doubles = tree_map_only(_View, double, (args, kwargs))
        try:
            results = func(*doubles[0], **doubles[1])
        except (RuntimeError, ZeroDivisionError):
            if value:
                raise
            continue
        return results, {s._cdata: m for m, s in storages.items()}, doubles
    raise AssertionError
