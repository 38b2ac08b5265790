"""The systems: what each is trained with, and how each is calibrated.

A system is a policy beside the training objective of its paper. Systems that their papers train
alike share one training. FIXED, the cross-entropy of the last exit alone, trains what they are
compared with: the model cut to k layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from eefast.calibration import calibrate
from eefast.policies import Policy, policy_class
from eefast.traces import ExitTrace, pareto_front, trade_off

FIXED = "fixed"


@dataclass(frozen=True)
class System:
    """A row of the table.

    Its own calibration is `calibrate` without a limit where the paper has a recipe or searches its
    settings on validation data, else the setting that the paper names, `Policy.default`.
    """

    name: str
    policy: str
    objective: str
    calibrated: bool = False  # its own calibration is `calibrate`
    recipe: bool = False  # `calibrate` does more than choose among the policy's settings
    learned: bool = False  # reads what its own objective alone teaches
    options: Mapping[str, Any] = field(default_factory=dict)  # of `calibrate`

    def own(self, trace: ExitTrace) -> Policy:
        """The policy at its paper's own calibration."""
        if self.calibrated:
            return calibrate(self.policy, trace, **self.options)
        policy = policy_class(self.policy).default(trace.num_exits)
        # What some settings mean depends on the number of classes: entropy in nats.
        return replace(policy, num_exits=trace.num_exits, num_classes=trace.num_classes)


def beem(name: str, **options: Any) -> System:
    """BEEM with options of its calibration."""
    return System(name, "beem", "beem", calibrated=True, recipe=True, options=options)


SYSTEMS = (
    beem("BEEM-A", weights="accuracy"),
    beem("BEEM-C", weights="cost"),
    System("PCEE", "pcee", "weighted"),
    System("PCEE-v1", "pcee-v1", "weighted"),
    System("PCEE-v2", "pcee-v2", "pcee-v2", learned=True),
    System("PABEE", "pabee", "weighted"),
    System("LeeBERT", "leebert", "leebert"),
    System("EEIC voting", "eeic", "eeic", calibrated=True),
    System("EEIC patience", "eeic-patience", "eeic", calibrated=True),
    System("EENet", "eenet", "branchynet", calibrated=True, recipe=True),
    System("BranchyNet", "branchynet", "branchynet"),
    System("DeeBERT", "deebert", "deebert"),
    System("FastBERT", "fastbert", "fastbert"),
    System("Shallow-Deep", "shallow-deep", "shallow-deep"),
    System("MSDNet", "msdnet", "branchynet", calibrated=True, recipe=True),
    System("RightTool", "righttool", "branchynet", calibrated=True, recipe=True),
    System("ElasticBERT", "elasticbert", "elasticbert"),
    System("BERxiT", "berxit", "berxit", learned=True),
    System("ZTW", "ztw", "ztw", calibrated=True, recipe=True),
    System("PALBERT", "palbert", "palbert", learned=True),
    System("JEI-DNN", "jei-dnn", "jei-dnn", calibrated=True, recipe=True, learned=True),
    System("MuE", "mue", "mue", calibrated=True, learned=True),
)

FINE = tuple(i / 20 for i in range(1, 121))
"""A finer space than the paper's for Eq. 3: 0.05 to 6."""

BEEM_SETTINGS = tuple(
    beem(f"BEEM-{letter}, Eq. 3, {space} space, {counting}", weights=weights, **options, **counts)
    for letter, weights in (("A", "accuracy"), ("C", "cost"))
    for space, options in (("paper's", {}), ("finer", {"space": FINE}))
    for counting, counts in (("still running", {}), ("independent", {"count": "independent"}))
) + tuple(
    beem(f"BEEM-{letter}, one threshold, searched", weights=weights, thresholds="search")
    for letter, weights in (("A", "accuracy"), ("C", "cost"))
)
"""BEEM's own ways to choose its numbers, all on its own training."""


class Calibrator:
    """A system on a trace of validation data, calibrated to limits, many times."""

    def __init__(self, system: System, trace: ExitTrace) -> None:
        self._system, self._trace = system, trace
        self._space: dict[str, Any] = {}
        self._fastest: float | None = None
        if not system.recipe:
            # The best settings for every limit are on the front: they are searched once.
            front = pareto_front(trade_off(policy_class(system.policy).settings(trace), trace))
            self._space = {"space": [point.policy for point in front]}
            self._fastest = front[-1].layer_speedup

    def to(self, **limit: float) -> Policy | None:
        """The policy chosen for a limit of `calibrate`; None: no setting is that fast."""
        wanted = limit.get("target_speedup")
        if self._fastest is not None and wanted is not None and self._fastest < wanted:
            return None
        try:
            return calibrate(
                self._system.policy, self._trace, **self._system.options, **self._space, **limit
            )
        except ValueError as error:
            if "reaches target_speedup" in str(error):  # only a recipe knows
                return None
            raise
