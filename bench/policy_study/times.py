"""Wall clock of a few systems, for the trained models that are in the cache."""

from __future__ import annotations

from typing import Any

from bench.policy_study.results import MAX_ACCURACY_DROP, RULE
from bench.policy_study.runs import Run, load, recorded, splits_of
from bench.policy_study.settings import Study
from bench.policy_study.systems import SYSTEMS, Calibrator
from eefast.evaluation import evaluate
from eefast.traces import ExitTrace
from eefast.training.fine_tune import is_finished

TIMED_SYSTEMS = ("BEEM-A", "PABEE", "PCEE", "BranchyNet", "EEIC voting")
TIMED_TEXTS = 300


def timed(studies: list[Study]) -> dict[str, Any]:
    """Latencies of one training each: the first seed of every study whose models are there."""
    found: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    for study in studies:
        data = splits_of(study.data, study.seeds[0])
        test = recorded(study, data, "test")
        texts = test.select(range(min(TIMED_TEXTS, len(test))))
        for system in SYSTEMS:
            run = Run(study, system.objective, study.seeds[0])
            if system.name not in TIMED_SYSTEMS or not is_finished(run.folder / "model"):
                continue
            model, tokenizer = load(run, data["train"])
            validation = ExitTrace.load(run.folder / "validation.safetensors")
            policy = Calibrator(system, validation).to(max_accuracy_drop=MAX_ACCURACY_DROP)
            assert policy is not None  # only a speed-up can be out of reach
            judged = evaluate(
                model,
                tokenizer,
                texts,
                policies={RULE: policy},
                max_length=run.max_length,
                timed=TIMED_TEXTS,
                progress=True,
            )
            found.setdefault(study.name, {})[system.name] = vars(judged[RULE].timing)
            environment = judged.environment
    return {"studies": found, "environment": environment}
