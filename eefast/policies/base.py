"""`Policy`: one row of the recurrence.

    S_0 = 0,    S_i = keep_i * S_(i-1) + w_i * gain_i,    exit at the first i with S_i >= alpha_i

(or S_i > alpha_i where the policy is `strict`); the last exit always answers. A policy is a frozen
dataclass that names its kinds and fills three columns, nothing more: all implementations of the
exit step, the simulation and the runtimes then know it. A policy of your own:

    @dataclass(frozen=True)
    class ConfidentPatience(Policy):
        '''Exit after `patience` confident exits in a row that all predict the same.'''

        name = "confident-patience"
        keep, gain = Keep.AGREE, Gain.CONFIDENCE_ABOVE
        patience: int = 2
        confidence: float = 0.9

        def columns(self, num_exits):
            return Columns(thresholds=self.patience, tau=self.confidence)

        @classmethod
        def settings(cls, trace):  # what calibrate(ConfidentPatience, trace) chooses from
            return [cls(t, c) for t in range(1, trace.num_exits) for c in (0.5, 0.7, 0.9)]

A public method that nothing calls is an error when the class is defined: it was meant for something
that no recurrence asks for (`should_exit`), or its name has a slip. What other methods of the class
call is fine, and so are names that begin with an underscore, and classmethods, which make policies,
unless their name is nearly one of `Policy`'s.

With `accumulate` the votes or log-probabilities of all exits so far speak instead of this exit
alone, or this exit at another temperature, or only the answer is that of several exits; with a
`scorer` there is a learned score q, for Gain.SCORE, Keep.NOT_SCORE and both SCORE_ABOVE: an extra
row of the model's heads (ScorerKind.ROW), or a small network that the policy itself holds
(ScorerKind.NETWORK, see `Policy.scorer_weights`). With Gain.SIMILARITY hidden vectors decide: no
head is computed before the last one gives the answer.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from eefast.ops import Accumulate, Gain, Keep, Recurrence, ScorerKind
from eefast.policies.checks import (
    check_kinds,
    check_members,
    check_outputs,
    check_scorer,
    check_scores,
    check_similarity,
    check_tau,
    check_whole,
)
from eefast.policies.description import tensors_in, to_json
from eefast.policies.expected import Expected
from eefast.policies.registry import policy_class, register
from eefast.policies.values import Values

if TYPE_CHECKING:
    from eefast.traces import ExitTrace

P = TypeVar("P", bound="Policy")


class Columns(NamedTuple):
    """The policy table before it is a tensor: a number for all exits, or one per exit.

    Weights and tau are finite; a threshold may be infinite.
    """

    weights: Values = 1.0
    thresholds: Values = math.inf
    tau: Values = 0.0


@dataclass(frozen=True, eq=False)
class Policy(ABC):
    """A rule that says at which exit a sample exits.

    Subclasses are frozen dataclasses, known by `name`. Calibration records in `num_exits` and
    `num_classes` what the numbers were chosen for; other models and traces refuse them. In
    `expected` it records the accuracy and speed-up that it found.

    Fields are what JSON can hold, tensors, or tuples of tensors; tensors are saved beside the JSON
    (see `tensors`). A policy with tensors is a `@dataclass(frozen=True, eq=False)`, so that
    `Policy` compares it: tensors have no plain equality.
    """

    name: ClassVar[str]

    num_exits: int | None = dataclasses.field(default=None, kw_only=True)
    num_classes: int | None = dataclasses.field(default=None, kw_only=True)
    # Not an argument: `dataclasses.replace` makes another policy, of which nothing is known.
    expected: Expected | None = dataclasses.field(default=None, init=False, compare=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A class that others share needs none: its name begins with an underscore.
        if not isinstance(getattr(cls, "name", None), str) and not cls.__name__.startswith("_"):
            raise TypeError(f"policy class {cls.__name__} needs a name: name = '...'")
        check_members(cls)
        if "name" in cls.__dict__:
            register(cls)

    def __new__(cls: type[P], *args: Any, **kwargs: Any) -> P:
        check_whole(cls)
        return super().__new__(cls)

    def __eq__(self, other: object) -> bool:
        """For policies with tensors, which dataclasses cannot compare."""
        if not isinstance(other, Policy) or type(other) is not type(self):
            return NotImplemented
        ours, theirs = self._fields(), other._fields()
        tensors, others = self.tensors(), other.tensors()
        return (
            all(tensors_in(k, v) or v == theirs[k] for k, v in ours.items())
            and tensors.keys() == others.keys()
            and all(map(torch.equal, tensors.values(), others.values()))
        )

    def __hash__(self) -> int:
        return hash(type(self))

    @property
    @abstractmethod
    def keep(self) -> Keep:
        """How much of the earlier exits' score is kept; a plain class attribute is enough."""

    @property
    @abstractmethod
    def gain(self) -> Gain:
        """What an exit adds to the score; a plain class attribute is enough."""

    @property
    def strict(self) -> bool:
        """Whether a sample exits at S > alpha rather than at S >= alpha."""
        return False

    @property
    def accumulate(self) -> Accumulate:
        """What speaks or answers instead of this exit alone."""
        return Accumulate.NONE

    @property
    def scorer(self) -> ScorerKind:
        """Where the learned score q comes from."""
        return ScorerKind.NONE

    def scorer_weights(self, exit: int) -> Tensor | None:
        """The network of exit `exit` (1-based) with ScorerKind.NETWORK, else None.

        [H, F + 2] float32 for H hidden units and F = C + 2 + exit features: the C probabilities,
        the confidence, 1 - entropy, the vote share, and the scores of the exits before. Row h:
        F weights, bias, output weight. q = sigmoid(sum_h out_h * leaky_relu(w_h f + b_h)).
        """
        return None

    @abstractmethod
    def columns(self, num_exits: int) -> Columns:
        """Weights, thresholds and tau for a model with `num_exits` exits."""

    def exits_used(self, num_exits: int) -> range:
        """The 1-based exits that the policy uses; the others are not computed."""
        return range(1, num_exits + 1)

    @classmethod
    def default(cls: type[P], num_exits: int) -> P:
        """The setting of the policy's paper, for a model that was not calibrated.

        Raises:
            ValueError: the policy has no such setting; it must be made with numbers.
        """
        try:
            return cls()
        except TypeError as error:
            raise ValueError(f"policy {cls.name!r} has no default setting: {error}") from None

    @property
    def recurrence(self) -> Recurrence:
        """The policy's kinds, ready to be run."""
        return Recurrence(self.keep, self.gain, self.strict, self.accumulate, self.scorer)

    @classmethod
    def settings(cls: type[P], trace: ExitTrace) -> Sequence[P]:
        """The settings that `eefast.calibrate` tries for a trace like this one.

        Raises:
            ValueError: the policy has none.
        """
        raise ValueError(
            f"policy {cls.name!r} does not say which settings to try: define its classmethod "
            "settings(trace), or give calibrate a space, a list of policies to choose from"
        )

    @property
    def reads_signals(self) -> bool:
        """Whether the decision depends on the sample at all."""
        return self.keep not in (Keep.NEVER, Keep.ALWAYS) or self.gain is not Gain.ONE

    def table(self, num_exits: int) -> Tensor:
        """The policy table, [num_exits, 3] float32: weight, threshold and tau of every exit.

        Raises:
            ValueError: the policy holds something else than numbers, numbers for another number
                of exits, NaN, or an infinite weight or tau.
            TypeError: its `columns` gives something else than `Columns`.
        """
        table = torch.empty(num_exits, 3, dtype=torch.float32, device="cpu")
        columns = self.columns(num_exits)
        if not isinstance(columns, Columns):
            raise TypeError(f"{self.name}: columns must give Columns(...), got {columns!r}")
        for i, (name, values) in enumerate(columns._asdict().items()):
            try:
                column = torch.as_tensor(values, dtype=torch.float32, device="cpu")
            except (TypeError, ValueError, OverflowError, RuntimeError):
                raise ValueError(
                    f"{self.name}: {name} must be a number or one per exit, got {values!r}"
                ) from None
            if column.dim() and list(column.shape) != [num_exits]:
                raise ValueError(
                    f"{self.name}: {name} has {column.numel()} values, "
                    f"the model has {num_exits} exits"
                )
            if column.isnan().any():
                raise ValueError(f"{self.name}: {name} must be numbers, got {values}")
            if name != "thresholds" and column.isinf().any():
                raise ValueError(f"{self.name}: {name} must be finite in float32, got {values}")
            table[:, i] = column
        return table

    def check(
        self,
        num_exits: int,
        num_classes: int,
        *,
        learned_scores: bool = True,
        similarity: bool = True,
    ) -> None:
        """Refuse a model or trace that this policy cannot judge.

        Args:
            num_exits: of the model or trace.
            num_classes: of the model or trace.
            learned_scores: whether the model's heads have a scorer, or the trace its scores.
            similarity: whether the model can exit by similarity (`MultiExitModel.has_similarity`),
                or the trace has similarities.

        Raises:
            ValueError: another number of exits or classes than the policy was calibrated for;
                a single output (regression), for a policy that asks for class probabilities, or
                that compares outputs with a tau of 0; no learned scores or similarities for a
                policy that reads them; kinds that do not go together; scorer weights of another
                shape than `scorer_weights` says; exits that a policy by similarity leaves out.
            TypeError: keep, gain, accumulate or scorer is not of its kind: the recurrence has no
                others.
        """
        check_kinds(self)
        for what, calibrated, got in (
            ("exits", self.num_exits, num_exits),
            ("classes", self.num_classes, num_classes),
        ):
            if calibrated not in (None, got):
                raise ValueError(
                    f"policy {self.name!r} was calibrated for {calibrated!r} {what}, got {got}"
                )
        check_similarity(self, num_exits, similarity)
        check_outputs(self, num_classes)
        check_scores(self, learned_scores)
        check_tau(self, self.table(num_exits), num_classes)
        for exit in self.exits_used(num_exits):
            check_scorer(self, exit, num_classes)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description without the tensors, read back by `policy_from_dict`.

        Raises:
            ValueError: a subclass without a name of its own, which would be read back as its
            parent.
        """
        if policy_class(self.name) is not type(self):
            raise ValueError(f"policy class {type(self).__name__} needs a name of its own")
        fields = self._fields()
        described = {
            "policy": self.name,
            **{k: to_json(v) for k, v in fields.items() if not tensors_in(k, v)},
        }
        if self.expected is not None:
            described["expected"] = self.expected.to_dict()
        return described

    def expecting(self: P, expected: Expected | None) -> P:
        """This policy, with what is expected of it."""
        policy = copy.copy(self)
        object.__setattr__(policy, "expected", expected)
        return policy

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are tensors, by name; those of a tuple as "<field>.<index>"."""
        return {
            key: tensor
            for field, value in self._fields().items()
            for key, tensor in tensors_in(field, value).items()
        }

    def _fields(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
