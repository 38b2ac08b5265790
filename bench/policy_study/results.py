"""Every policy on every trace: calibrated on validation samples, judged on test samples."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.policy_study.bootstrap import Figures, Resampled, summary
from bench.policy_study.data import DATA
from bench.policy_study.runs import SPLITS, Run, fingerprint_in, runs_of, traces_of
from bench.policy_study.settings import BACKBONES, STUDIES, Study
from bench.policy_study.systems import BEEM_SETTINGS, SYSTEMS, Calibrator, System
from eefast.policies import Policy
from eefast.traces import ExitTrace, Simulation, oracle, simulate

MAX_ACCURACY_DROP = 0.005
"""The rule: of the settings that lose at most half a point against the last exit, the fastest."""
TARGETS = (1.3, 1.5, 2.0)
CURVE = (1.1, 1.2, 1.4, 1.75, 2.5, 3.0)
"""Layer speed-ups that settings are chosen for: those of the tables, and more for pictures."""
RULE, OWN = "rule", "own"
"""Calibrations by name, beside those of TARGETS, such as "1.5"."""
REFERENCE = "BEEM-A"


def results(
    folder: Path,
    systems: Sequence[System] = SYSTEMS,
    studies: Iterable[Study] = STUDIES.values(),
    *,
    workers: int = 1,
) -> dict[str, Any]:
    """All figures from the committed traces, ready for JSON; always the same ones.

    Args:
        folder: of what is committed.
        systems: to judge.
        studies: those without traces are left out.
        workers: processes.

    Raises:
        ValueError: there are traces of a study, and none of what it is compared with.
    """
    jobs = [
        run
        for study in studies
        for seed in study.seeds
        for run in _runs(study, seed, systems)
        if run.layers is None and run.committed(folder, "test").exists()
    ]
    judge = partial(judged, folder, systems)
    if workers == 1:
        found = [judge(run) for run in jobs]
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker) as pool:
            found = list(pool.map(judge, jobs))
    of_study: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for run, one in zip(jobs, found, strict=True):
        of_study.setdefault(run.study.name, {}).setdefault(run.seed, []).append(one)
    made = {
        study.name: _aggregated(
            study,
            {seed: _merged(ones) for seed, ones in of_study[study.name].items()},
            systems,
        )
        for study in studies
        if study.name in of_study
    }
    return {"studies": made, "traces": fingerprints(folder)}


def _begin_worker() -> None:
    torch.set_num_threads(1)
    logging.getLogger("eefast").setLevel(logging.ERROR)  # tables show who missed the rule


def _merged(ones: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the trainings of one study and seed gave, as if it were one."""
    merged: dict[str, Any] = {}
    for one in ones:
        for name, value in one.items():
            if isinstance(value, dict) and name != "samples":
                merged.setdefault(name, {}).update(value)
            else:
                merged[name] = value
    return merged


def fingerprints(folder: Path) -> dict[str, str]:
    """Of every committed trace, by file name."""
    return {path.name: fingerprint_in(path) for path in sorted((folder / "traces").glob("*"))}


def judged(folder: Path, systems: Sequence[System], run: Run) -> dict[str, Any]:
    """Figures of one training: of the systems that it is for, and in short of the others.

    Raises:
        ValueError: there are no traces of the full model trained without exits.
    """
    study, given = run.study, traces_of(run, folder)
    cut = {
        fixed.layers: traces_of(fixed, folder)["test"]
        for fixed in _runs(study, run.seed, [])
        if fixed.layers is not None and fixed.committed(folder, "test").exists()
    }
    if BACKBONES[study.backbone].depth not in cut:
        raise ValueError(
            f"{study.name}, seed {run.seed}: there are no traces of the model trained without "
            "exits; train it first"
        )
    resampled = Resampled(given["test"], cut)
    of_systems: dict[str, Any] = {}
    crossed: dict[str, Any] = {}
    for system in systems:
        if system.objective == run.objective:
            of_systems[system.name] = _of_system(system, given, resampled)
        elif not system.learned and run.seed == study.seeds[0]:
            crossed[f"{system.name} on {run.objective}"] = _crossed(system, given)
    settings = {}
    for setting in BEEM_SETTINGS if run.objective == "beem" else ():
        outcome = simulate(setting.own(given["validation"]), given["test"])
        settings[setting.name] = _point(resampled, outcome)
    return {
        "samples": {split: len(given[split].labels) for split in SPLITS},
        "classes": given["test"].num_classes,
        "fixed": {layers: trace.accuracies()[0].item() for layers, trace in cut.items()},
        "exits": {run.objective: given["test"].accuracies().tolist()},
        "systems": of_systems,
        "settings": settings,
        "crossed": crossed,
        "oracle": {run.objective: resampled.figures(oracle(given["test"]))},
    }


def _of_system(
    system: System, given: Mapping[str, ExitTrace], resampled: Resampled
) -> dict[str, Any]:
    """Points of the tables with resamples, and those of the curve."""
    calibrator = Calibrator(system, given["validation"])
    chosen: dict[str, Policy | None] = {
        RULE: calibrator.to(max_accuracy_drop=MAX_ACCURACY_DROP),
        OWN: system.own(given["validation"]),
        **{f"{t:g}": calibrator.to(target_speedup=t) for t in TARGETS},
    }
    points = {
        name: _point(resampled, simulate(policy, given["test"]))
        for name, policy in chosen.items()
        if policy is not None
    }
    curve = []
    for target in sorted((*TARGETS, *CURVE)):
        policy = chosen.get(f"{target:g}") or calibrator.to(target_speedup=target)
        if policy is not None:
            outcome = simulate(policy, given["test"])
            curve.append((outcome.layer_speedup, outcome.accuracy))
    return {"points": points, "curve": curve}


def _point(resampled: Resampled, outcome: Simulation) -> dict[str, Any]:
    share = outcome.exit_histogram.double() / len(outcome.labels)
    return {"figures": resampled.figures(outcome), "exits": share.numpy()}


def _crossed(system: System, given: Mapping[str, ExitTrace]) -> list[float] | None:
    """Accuracy and speed-up at about 1.5x on a model that another objective has trained."""
    policy = Calibrator(system, given["validation"]).to(target_speedup=1.5)
    if policy is None:
        return None
    outcome = simulate(policy, given["test"])
    return [round(outcome.accuracy, 6), round(outcome.layer_speedup, 4)]


def _aggregated(
    study: Study, of_seeds: Mapping[int, dict[str, Any]], systems: Sequence[System]
) -> dict[str, Any]:
    """Medians over seeds, with intervals."""
    found = list(of_seeds.values())
    first = found[0]
    by_rule = {
        system.name: {
            seed: one["systems"][system.name]["points"][RULE]
            for seed, one in of_seeds.items()
            if system.name in one["systems"] and RULE in one["systems"][system.name]["points"]
        }
        for system in systems
    }
    summed = {}
    for system in systems:
        numbers = [seed for seed, one in of_seeds.items() if system.name in one["systems"]]
        seeds = [of_seeds[seed]["systems"][system.name] for seed in numbers]
        if not seeds:
            continue
        points = {}
        for name in (RULE, OWN, *(f"{t:g}" for t in TARGETS)):
            there = [seed["points"][name] for seed in seeds if name in seed["points"]]
            if len(there) == len(seeds):  # where one seed does not get there, none is told of
                points[name] = _summed(there)
        ours, theirs = by_rule[system.name], by_rule.get(REFERENCE, {})
        both = [seed for seed in ours if seed in theirs]
        against = None
        if system.name != REFERENCE and both:
            against = summary(
                [
                    ours[seed]["figures"]["faster_trained"]
                    / theirs[seed]["figures"]["faster_trained"]
                    for seed in both
                ]
            )
        curves = [seed["curve"] for seed in seeds]
        shared = min(map(len, curves))  # targets are missed at the fast end alone
        medians = np.median([curve[:shared] for curve in curves], 0).tolist()
        summed[system.name] = {
            "policy": system.policy,
            "objective": system.objective,
            "seeds": numbers,
            "points": points,
            "curve": sorted([round(x, 4), round(y, 6)] for x, y in medians),
            "against_reference": against,
        }
    return {
        "data": study.data,
        "title": DATA[study.data].title,
        "backbone": study.backbone,
        "model": BACKBONES[study.backbone].title,
        "depth": BACKBONES[study.backbone].depth,
        "training": vars(study.training),
        "seeds": list(of_seeds),
        "samples": first["samples"],
        "classes": first["classes"],
        "fixed": {
            str(k): round(float(np.median([one["fixed"][k] for one in found])), 6)
            for k in sorted(first["fixed"])
            if all(k in one["fixed"] for one in found)
        },
        "exits": {o: _medians([one["exits"].get(o) for one in found]) for o in first["exits"]},
        "systems": summed,
        "missing": [system.name for system in systems if system.name not in summed],
        "settings": {
            name: _summed([one["settings"][name] for one in found if name in one["settings"]])
            for name in first["settings"]
        },
        "crossed": first["crossed"],
        "oracle": {
            objective: {
                name: summary([one["oracle"][objective][name] for one in found])["median"]
                for name in ("accuracy", "speedup")
            }
            for objective in first["oracle"]
            if all(objective in one["oracle"] for one in found)
        },
    }


def _summed(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One point over seeds: its figures, and where samples exit."""
    figures: list[Figures] = [point["figures"] for point in points]
    return {
        **{name: summary([one[name] for one in figures]) for name in figures[0]},
        "exits": [round(x, 4) for x in np.mean([point["exits"] for point in points], 0).tolist()],
    }


def _medians(rows: Sequence[Any]) -> list[float]:
    there = [row for row in rows if row is not None]
    return [round(x, 6) for x in np.median(there, 0).tolist()]


def _runs(study: Study, seed: int, systems: Iterable[System]) -> list[Run]:
    return list(runs_of(study, [seed], [system.objective for system in systems]))
