"""Every system of the papers on real data: trained, calibrated, and compared with fixed depth.

    python -m bench.policy_study             # the movie reviews, one seed: about 40 minutes
    python -m bench.policy_study --all       # everything: hours
    python -m bench.policy_study --results   # all tables again, from the committed traces

Trainings are kept in XDG_CACHE_HOME/eefast/study; what is finished is not done again, what was
interrupted goes on. Traces, results and pictures are written to docs/policy_study, and the page to
docs/policy_study.md. `make study` installs the packages that the data and weights come from.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.policy_study import FOLDER, PAGE
from bench.policy_study.page import draw, markdown, tables
from bench.policy_study.results import results
from bench.policy_study.runs import runs_of, train_all
from bench.policy_study.settings import STUDIES, Study
from bench.policy_study.systems import SYSTEMS, System
from bench.policy_study.times import timed
from eefast.files import write_whole

DEFAULT = "mr-minilm"


def main(arguments: list[str] | None = None) -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="all studies and seeds")
    which.add_argument("--studies", nargs="+", choices=STUDIES, help="these, with all seeds")
    which.add_argument("--results", action="store_true", help="train nothing")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these")
    parser.add_argument("--time", action="store_true", help="also measure some on the clock")
    options = parser.parse_args(arguments)
    names = STUDIES if options.all else options.studies or [DEFAULT]
    studies = [STUDIES[name] for name in names]
    alone = not (options.all or options.studies)  # the default run
    if not options.results:
        runs = [
            run
            for study in studies
            for seed in (study.seeds[:1] if alone else study.seeds)
            if options.seeds is None or seed in options.seeds
            for run in runs_of(study, [seed], trained_with(study, seed))
        ]
        try:
            train_all(runs, FOLDER)
        except (FileNotFoundError, KeyboardInterrupt) as error:
            sys.exit(str(error))
    write_page(FOLDER, PAGE, SYSTEMS, time=options.time)


def trained_with(study: Study, seed: int) -> Sequence[str]:
    """The objectives of a study's models."""
    return [s.objective for s in SYSTEMS] if seed == study.complete else study.objectives


def write_page(folder: Path, page: Path, systems: Sequence[System], *, time: bool = False) -> None:
    """Results, pictures and page of the traces in a folder."""
    found = results(folder, systems, workers=os.cpu_count() or 1)
    write_whole(folder / "results.json", json.dumps(found, indent=1) + "\n")
    clock = folder / "times.json"
    if time:
        write_whole(clock, json.dumps(timed([*STUDIES.values()]), indent=1) + "\n")
    draw(found, folder)
    measured = json.loads(clock.read_text()) if clock.exists() else None
    write_whole(page, markdown(found, measured))
    print(tables(found["studies"].values()))
    print(f"\n{page}")


if __name__ == "__main__":
    main()
