"""`record_trace`: a multi-exit model at full depth over a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from eefast.backbones import Inputs, embedded, gathered
from eefast.forward import over_inputs
from eefast.labels import check_labels
from eefast.ops import ExitState, Gain, Keep, ScorerKind, SimilarityState, Step, implementation
from eefast.ops.implementations import Op
from eefast.traces.trace import ExitTrace

Kept = Literal["hidden", "scores", "similarity"]


def record_trace(
    model: PreTrainedModel,
    data: Iterable[Mapping[str, Any]],
    *,
    keep: Collection[Kept] = (),
    progress: bool = False,
) -> ExitTrace:
    """Run a multi-exit model at full depth over labelled data and keep every exit's logits.

    They are the float32 logits of the exit step that `eefast.compile` runs by default, or of
    impl="reference" where that has none for the model's device and dtype. The model runs in its
    own precision, under no autocast, whatever Trainer has left around its `forward`.

    Args:
        model: a `MultiExitModel`; run in evaluation mode, the modes of its modules are restored.
        data: batches as the model takes them, each with "labels", e.g. a `DataLoader`.
        keep: what else to keep, as some policies and calibrations ask for it: "scores", the
            learned score of each exit; "similarity", the cosine of the vector that each exit reads
            and that of the layer before; "hidden", the vectors that the heads read, in the model's
            dtype (L * D numbers a sample).
        progress: show a progress bar, if stderr is a terminal.

    Raises:
        ValueError: no batch, a batch without labels, labels that do not belong to their batch, or
            something to keep that is unknown or that the model does not have.
        TypeError: not a multi-exit model, or data that is one batch rather than an iterable.
    """
    check_recordable(model, data)
    if isinstance(keep, str) or not set(keep) <= set(get_args(Kept)):
        raise ValueError(f"keep must be some of {get_args(Kept)}, got {keep!r}")
    heads: Any = model.heads
    if "scores" in keep and heads.scorer is None:
        raise ValueError(
            "keep=('scores',) needs a model with learned scores: "
            "eefast.attach_exits(..., scorer_row=True)"
        )
    if "similarity" in keep and "similarity" not in keepable(model):
        raise ValueError(
            "keep=('similarity',) needs a model with an exit after every layer and one head for "
            "all: eefast.attach_exits(..., share_head=True)"
        )
    exits = _AllExits(model, "scores" in keep, "hidden" in keep, "similarity" in keep)
    logits, labels, scores, hidden, similarity = [], [], [], [], []
    on_device = torch.autocast(model.device.type, enabled=False)
    with torch.inference_mode(), on_device, _evaluating(model):
        for number, batch in enumerate(tqdm(data, "recording", disable=None if progress else True)):
            if not isinstance(batch, Mapping):
                raise TypeError(f"batch {number} must be inputs by name, got {type(batch)}")
            given = batch.get("labels")
            if given is None:
                raise ValueError(f"batch {number} has no 'labels', only {sorted(batch)}")
            met = exits.forward(**batch)
            logits.append(torch.stack([exit.logits for exit in met]))
            scores.append(torch.stack([exit.score for exit in met]))
            hidden.append([exit.vectors for exit in met])
            similarity.append([exit.similarity for exit in met])
            labels.append(given.reshape(-1).cpu())  # of a regression they may be [B, 1]
    if not logits:
        raise ValueError("data must hold at least one batch, got none")
    return ExitTrace(
        torch.cat(logits, 1),
        torch.cat(labels),
        tuple(model.config.exits),
        exits.backbone.costs,
        scores=torch.cat(scores, 1) if "scores" in keep else None,
        hidden=_of_all(hidden) if "hidden" in keep else (),
        similarity=torch.stack(_of_all(similarity)) if "similarity" in keep else None,
    )


def keepable(model: PreTrainedModel) -> tuple[Kept, ...]:
    """What policies may ask of this model's traces beside the logits, and it can give."""
    has: Any = model
    scores: tuple[Kept, ...] = () if has.heads.scorer is None else ("scores",)
    return (*scores, "similarity") if has.has_similarity else scores


def _of_all(batches: list[list[Tensor | None]]) -> tuple[Tensor, ...]:
    """What each exit gave for all batches, from what each batch got of all exits."""
    return tuple(map(torch.cat, zip(*batches, strict=True)))


def check_recordable(model: PreTrainedModel, data: Any) -> None:
    """Refuse what `record_trace` cannot record, before anything is done with it."""
    if isinstance(data, Mapping):
        raise TypeError(f"data must be an iterable of batches, got one batch ({sorted(data)})")
    if not hasattr(model, "heads"):
        raise TypeError(f"model must be a MultiExitModel, got {type(model).__name__}")


class _Met(NamedTuple):
    """What one exit gives, on the CPU."""

    logits: Tensor  # (B, C) float32
    score: Tensor  # (B,) float32: learned, where asked for
    vectors: Tensor | None  # (B, D): what the head reads, where asked for
    similarity: Tensor | None  # (B,) float32: to the layer before, where asked for


class _AllExits:
    """All layers of a model, and the exit step of each of its exits: a policy of one exit, each."""

    def __init__(self, model: Any, scores: bool, vectors: bool, similarity: bool) -> None:
        self.backbone = model.layers
        self.input_names = model.input_names
        self._vectors = vectors
        self._similarity = similarity
        self._classes = model.num_classes
        exits = model.config.exits
        self._heads = {
            layer: model.heads.weights(exit, scores) for exit, layer in enumerate(exits, 1)
        }
        self._step = (
            Step(1, 1, Keep.NEVER, Gain.SCORE, scorer=ScorerKind.ROW)  # S = q
            if scores
            else Step(1, 1, Keep.NEVER, Gain.ONE)
        ).pack()
        # At the last exit of a table all samples exit, and get their logits.
        self._table = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float32, device=model.device)
        # At the first of two, none exits whose threshold is infinite.
        self._compare = Step(1, 1, Keep.NEVER, Gain.ONE, strict=True).pack()
        self._compared = torch.tensor([[1.0, math.inf, 0.0]] * 2, device=model.device).float()

    @over_inputs
    def forward(
        self, inputs: Inputs, labels: Tensor | None, return_dict: bool | None
    ) -> list[_Met]:
        """What every exit gives for a batch."""
        backbone, device = self.backbone, self.backbone.device
        samples, _ = backbone.check(inputs)
        check_labels(labels, self._classes, samples)
        op, compare = (self._op(op, samples) for op in ("exit_step", "similarity_step"))
        inputs = {name: value.to(device) for name, value in inputs.items()}
        hidden, context = backbone.start(inputs)
        before = logits = None
        if self._similarity:
            before = SimilarityState.start(embedded(backbone, hidden, context), 2)
        met = []
        for layer in range(1, backbone.depth + 1):
            hidden = backbone.layer(layer, hidden, context)
            head = self._heads.get(layer)
            if head is None:
                continue
            vectors, offsets = backbone.readout(layer, hidden, context)
            state = ExitState.start(
                samples, self._classes, 1, "cpu" if device.type == "cpu" else device
            )
            if logits is not None:  # which a cascade's head reads
                state.logits.copy_(logits)
            logits = state.logits
            op(vectors, offsets, *head, None, self._table, None, self._step, *state)
            if before is not None:
                compare(vectors, offsets, self._compared, None, self._compare, *before)
            kept = gathered(vectors, offsets).to("cpu", copy=True) if self._vectors else None
            compared = None if before is None else before.score.to("cpu", copy=True)
            met.append(_Met(state.logits.cpu(), state.score.cpu(), kept, compared))
        return met

    def _op(self, op: Op, samples: int) -> Callable[..., None]:
        device, dtype, classes = self.backbone.device, self.backbone.dtype, self._classes
        try:
            return implementation("auto", device, dtype, rows=samples, classes=classes, op=op)
        except (ValueError, TypeError, RuntimeError):
            return implementation("reference", op=op)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
