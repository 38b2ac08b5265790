"""The graph runtime, for CUDA: one launch per call, and no decision on the host."""

from __future__ import annotations

import operator
import threading
import warnings
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from typing import ClassVar, get_args

import torch
from torch import Tensor

from eefast.backbones import Backbone, Inputs
from eefast.ops import ExitState, Impl
from eefast.runtime.batch import Batches, check_devices
from eefast.runtime.graph.buckets import LengthBuckets
from eefast.runtime.graph.captured import CapturedCall, Nodes
from eefast.runtime.graph.cuda import BackEnd, CudaGraphDevice
from eefast.runtime.graph.device import GraphDevice
from eefast.runtime.graph.static_inputs import Form, StaticInputs, forms
from eefast.runtime.plan import Plan, Stage
from eefast.runtime.stats import CallStats, RuntimeStats


class GraphRuntime:
    """Captures the whole model once per shape into a CUDA graph that decides for itself.

    A shape is the forms of all inputs, dtypes and sizes, with sequences padded to a length bucket
    (where the backbone has tokens and can hide padding). It is captured when it is first met, which
    takes as long as some dozens of calls; `warm_up` does it beforehand. When all together hold more
    than `memory_limit`, or the device has no more, those used longest ago are discarded, with a
    warning.

    Every layer after the first exit stands in an IF node whose condition the exit before has given.
    In `nested` nodes, each stage stands inside the node of the stage before: after the last sample
    has exited nothing more is looked at, so a call costs what its exit costs. In `flat` nodes, one
    behind another, every later node is still asked. Nested is the default for that reason; no GPU
    has compared them.

    Samples that have exited stay in the batch, untouched, until the last one exits: a captured
    shape cannot shrink.

    Calls of several threads and streams take turns.

    Args:
        backbone: on a CUDA device.
        num_classes: C.
        impl: implementation of the exit step, not "reference".
        length_buckets: ascending lengths to pad to; None: powers of two and the numbers half-way
        between.
        memory_limit: bytes of device memory that captured shapes may hold together.
        nodes: "nested" or "flat".
        back_end: how IF nodes are made: "torch" (2.13 or newer), "bindings" (the package
            cuda-bindings), or "auto", the first of them that is there.
        device: records and replays, in the place of the backbone's CUDA device.

    Raises:
        ValueError: unknown nodes, back end or buckets, a limit that is no number of bytes, or an
            implementation that does not fit.
        TypeError, RuntimeError: as `eefast.ops.implementation`; this torch, CUDA or driver has no
            IF nodes.
    """

    device_type: ClassVar[str | None] = "cuda"
    options: ClassVar[frozenset[str]] = frozenset(
        {"length_buckets", "memory_limit", "nodes", "back_end"}
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        impl: Impl,
        length_buckets: Sequence[int] | None = None,
        memory_limit: int = 4 << 30,
        nodes: Nodes = "nested",
        back_end: BackEnd = "auto",
        device: GraphDevice | None = None,
    ) -> None:
        if nodes not in get_args(Nodes):
            raise ValueError(f"nodes must be one of {get_args(Nodes)}, got {nodes!r}")
        if not isinstance(memory_limit, int) or memory_limit < 1:
            raise ValueError(f"memory_limit must be a number of bytes, got {memory_limit!r}")
        if impl == "reference":
            raise ValueError(
                "impl='reference' cannot be captured into a CUDA graph, because it reads which "
                "samples are running; 'triton' and 'cuda' can"
            )
        if length_buckets is not None and not backbone.padding:
            raise ValueError("length_buckets: the model has no tokens to pad")
        self._batches = Batches(backbone, num_classes, impl)
        self._on = backbone.device
        self._backbone = backbone
        self._num_classes = num_classes
        self._buckets = LengthBuckets(length_buckets, backbone.max_length)
        self._memory_limit = memory_limit
        self._nodes = nodes
        self._device = device or CudaGraphDevice(self._on, back_end)
        self._lock = threading.Lock()
        self._captured: OrderedDict[Hashable, CapturedCall] = (
            OrderedDict()
        )  # the most recently used is last
        self._layout: tuple[Plan | None, Hashable] = (None, None)
        self._addresses: tuple[object, ...] = ()
        self._parts: tuple[object, ...] = ()

    def run(self, plan: Plan, inputs: Inputs, stats: RuntimeStats | None = None) -> ExitState:
        """See `Runtime.run`; a shape is captured first, unless it has been.

        Raises:
            ValueError: inputs that the backbone or the buckets cannot take, or on another device.
            RuntimeError: layers that cannot be captured, or that need more than `memory_limit`.
            torch.OutOfMemoryError: there is no room for a shape, even with all others discarded.
        """
        samples, length = self._backbone.check(inputs)
        check_devices(inputs, self._on)  # a copy into a buffer would take them in silence
        if not samples:
            return plan.state(0, self._num_classes, self._on)
        bucket = None
        if self._backbone.padding and length is not None:
            bucket = self._buckets.bucket(length)
        shape = forms(self._backbone, inputs, samples, bucket)
        if bucket is None:
            length = None
        with self._lock:
            call = self._call_for(plan, inputs, samples, length, shape)
            state, launches = call.run(plan, inputs, length)
        if stats is not None:
            stats.add(partial(_count, plan, state, launches))
        return state

    def close(self) -> None:
        """Wait for running calls and discard all captured shapes."""
        with self._lock:
            self._forget_all()

    def _forget_all(self) -> None:
        while self._captured:
            self._captured.popitem()[1].close()

    def _call_for(
        self,
        plan: Plan,
        inputs: Inputs,
        samples: int,
        length: int | None,
        shape: tuple[Form, ...],
    ) -> CapturedCall:
        key = self._layout_of(plan), samples, shape
        call = self._captured.get(key)
        while call is None:
            try:
                call = self._capture(plan, inputs, samples, length, shape)
            except torch.OutOfMemoryError:
                if not self._captured:
                    raise
                self._give_up_one()
            else:
                self._captured[key] = call
                self._make_room()
        self._captured.move_to_end(key)
        return call

    def _capture(
        self,
        plan: Plan,
        inputs: Inputs,
        samples: int,
        length: int | None,
        shape: tuple[Form, ...],
    ) -> CapturedCall:
        buffers = StaticInputs(self._backbone, shape, self._on)
        buffers.write(inputs, length)
        return CapturedCall(
            self._device,
            self._batches,
            plan,
            samples,
            self._num_classes,
            buffers,
            self._nodes,
        )

    def _make_room(self) -> None:
        """Discard shapes until the rest fits; the newest must fit."""
        while sum(call.reserved_bytes for call in self._captured.values()) > self._memory_limit:
            needed = self._give_up_one()
            if not self._captured:
                raise RuntimeError(
                    f"this shape needs {needed} bytes of device memory, memory_limit is "
                    f"{self._memory_limit}; give more, or call with fewer samples or tokens"
                )

    def _give_up_one(self) -> int:
        """Discard the least recently used shape; returns its bytes."""
        _, call = self._captured.popitem(last=False)
        freed = call.reserved_bytes
        call.close()
        if self._captured:
            warnings.warn(
                "captured shapes do not all fit into memory_limit or the device's memory: the one "
                "used longest ago is given up, and captured anew when it is met again",
                stacklevel=2,
            )
        return freed

    def _layout_of(self, plan: Plan) -> Hashable:
        """All that a capture takes from a plan, except numbers in memory.

        Captures of a model whose parts were replaced since are discarded here.
        """
        known, layout = self._layout
        if known is not plan:
            model = self._backbone.model
            tensors = (*model.parameters(), *model.buffers())
            addresses = _addresses(tensors)
            parts = (*model.modules(), *tensors)  # kept alive, so that no address is reused
            if addresses != self._addresses or not _same(parts, self._parts):
                self._forget_all()
                self._addresses, self._parts = addresses, parts
            layout = (
                # A capture holds its plan's heads, so no others can come to lie at their addresses.
                tuple(
                    (s.layers, s.exit, s.step, _addresses((*s.head, s.scorer, *_of_read(s))))
                    for s in plan.stages
                ),
                plan.table.shape,
                plan.by_similarity,
                model.config._attn_implementation,
            )
            self._layout = (plan, layout)
        return layout


def _of_read(stage: Stage) -> Iterable[Tensor | None]:
    return (weights for read in stage.read.values() for weights in read.head)


def _addresses(tensors: Iterable[Tensor | None]) -> tuple[object, ...]:
    return tuple(None if t is None else (t.data_ptr(), t.stride()) for t in tensors)


def _same(ours: tuple[object, ...], theirs: tuple[object, ...]) -> bool:
    return len(ours) == len(theirs) and all(map(operator.is_, ours, theirs))


def _count(plan: Plan, state: ExitState, launches: int) -> CallStats:
    last = int(state.exit_layer.max())
    steps = sum(stage.layers.stop - 1 <= last for stage in plan.stages)
    return CallStats(len(state.exit_layer), last, 0, steps, 0, 0, launches)
