"""results.json as Markdown. It names whatever is missing, failed or left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.gpu.computed import computed_us, constants, decision_us, measured_constants
from eefast.measure import markdown_table

TEXT = """\
Times in us. Variants take turns at every call; each number is a mean over drawn calls of medians
over rounds (p10 to p90 of single calls about their median). Wall clock: from the call until the
GPU is done and the host knows. float16, random weights, tokens and mask already on the GPU.

Exits are forced: in each call all samples exit after a drawn layer m, after all heads up to m
have been computed, by thresholds written into the policy table. m follows the exits of BEEM-A in
docs/demo/tweets/report.json (6 exits; of 12 layers, exit i stands for layers 2i-1 and 2i), with a
fixed seed, and is the same for all variants. For a batch it is the **maximum** of as many draws,
because rows stay until the last sample exits; so larger batches gain little whatever the runtime.
After the timing, checks confirmed that samples exited where they had to and that the variants'
logits agree.

Speed-up is over the fastest of the variants of full depth, `torch.compile` and `Never()` in a graph
among them. Its ratio to the layer speed-up says how much of the gain remains: 1.00 is all of it.
"""

CONSTANTS_TEXT = """\
Computed by bench/overhead_model with the constants below, measured on this machine where
possible; each cell is computed / measured. `Never(), graph` agrees by construction.
"""


def markdown(data: Mapping[str, Any]) -> str:
    """The whole report of what has been measured so far: it is written after every section."""
    costs, steps, models = (
        data.get(name, {}).get("items", {}) for name in ("costs", "exit_steps", "models")
    )
    where = costs.get("environment", {})
    rows = {name: row for name, row in models.items() if "variants" in row}
    lines = ["# eefast on a GPU: measured", "", *_environment(where), ""]
    failed = failures(data)
    if failed:
        lines += ["**Failed:**", "", *(f"- {line}" for line in failed), ""]
    left_out = list(_left_out(data))
    if left_out:
        lines += ["Left out:", "", *(f"- {line}" for line in left_out), ""]
    lines += [*_tests(data.get("tests")), "", TEXT]
    if rows:
        lines += ["## From end to end", "", *_speedups(rows), *_times(rows), *_energy(rows)]
    lines += ["## The parts", "", *_parts(costs), *_nodes(costs), *_exit_steps(steps)]
    if rows:
        measured = measured_constants(costs, where.get("if_nodes"))
        lines += ["## Computed beside measured", "", CONSTANTS_TEXT, *_computed(rows, measured)]
    return "\n".join(lines) + "\n"


def failures(data: Any, path: str = "") -> list[str]:
    """Everything that failed, anywhere in the results, one line each; also failed tests."""
    found = []
    if isinstance(data, Mapping):
        if data.get("error"):
            found.append(f"{path}: {_one_line(data['error'])}")
        for failed in data.get("failures") or ():
            found.append(f"{failed['test']}: {_one_line(failed['message'])}")
        for what, message in (data.get("errors") or {}).items():
            found.append(f"{path}, {what}: {_one_line(message)}")
        for name, value in data.items():
            if name not in ("error", "errors", "failures"):
                found += failures(value, f"{path}, {name}" if path else str(name))
    return found


def _left_out(data: Any, path: str = "") -> Iterable[str]:
    if isinstance(data, Mapping):
        if isinstance(data.get("skipped"), str):
            yield f"{path}: {_one_line(data['skipped'])}"
        for name, value in data.items():
            yield from _left_out(value, f"{path}, {name}" if path else str(name))


def _one_line(text: Any) -> str:
    line = " ".join(str(text).split()).replace("|", "/")
    return line if len(line) <= 300 else line[:300] + " ..."


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table and an empty one; nothing for no rows."""
    return [markdown_table(columns, rows), ""] if rows else []


def _environment(where: Mapping[str, Any]) -> list[str]:
    if "device" not in where:
        return ["The device is not known (yet)."]
    versions = ", ".join(f"{name} {v or 'none'}" for name, v in where["versions"].items())
    clocks, power = where["clocks_before"], where["power_limit_mw"]
    return [
        f"{where['device']} (compute capability {where['compute_capability']}, "
        f"{where['multiprocessors']} multiprocessors), driver {where['driver'] or 'unknown'}, CUDA "
        f"{where['cuda']}; SM clock {clocks['sm_mhz'] or '?'} of {where['max_sm_mhz'] or '?'} MHz "
        f"before, memory {clocks['memory_mhz'] or '?'} MHz, power limit "
        f"{power / 1000 if power else '?'} W. {where['cpu']}, {where['cpu_count']} cores. "
        f'{versions}. Commit {where["commit"] or "unknown"}, {where["date"]}. impl="cuda": '
        f"{where['exit_step_cuda']}; IF nodes by: {where['if_nodes']}."
    ]


def _tests(tests: Mapping[str, Any] | None) -> list[str]:
    if tests is None or "passed" not in tests:
        return ["tests/gpu: no counts."]
    counts = ", ".join(f"{tests[name]} {name}" for name in ("passed", "failed", "skipped"))
    return [f"tests/gpu: {counts}."]


def _names(rows: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row["variants"]))


def _speedups(rows: Mapping[str, Any]) -> list[str]:
    early = list(dict.fromkeys(name for row in rows.values() for name in row["speedups"]))
    columns, lines = ["shape", "fastest of full depth", "layer speed-up", *early], []
    for name, row in rows.items():
        cells = [
            f"{s['over_fastest']:.2f}x, {s['of_layers']:.2f}" if s else "-"
            for s in (row["speedups"].get(variant) for variant in early)
        ]
        lines.append(
            [name, row["fastest_full_depth"] or "-", f"{row['layer_speedup']:.2f}x", *cells]
        )
    return [
        "Wall-clock speed-up, and its ratio to the layer speed-up:",
        "",
        *_table(columns, lines),
    ]


def _times(rows: Mapping[str, Any]) -> list[str]:
    names = _names(rows)
    columns, wall, device = ["shape", *names], [], []
    for shape, row in rows.items():
        found = [row["variants"].get(name, {}) for name in names]
        wall.append([shape, *(_spread(v) for v in found)])
        device.append([shape, *(f"{v['device']['us']:.0f}" if "device" in v else "-"
                                for v in found)])  # fmt: skip
    return [
        "Wall clock (p10 to p90):", "", *_table(columns, wall),
        "Between two events on the stream:", "", *_table(columns, device),
    ]  # fmt: skip


def _spread(variant: Mapping[str, Any]) -> str:
    if "error" in variant:
        return "failed"
    if "wall" not in variant:
        return "-"
    wall = variant["wall"]
    return f"{wall['us']:.0f} ({wall['p10_us']:.0f} to {wall['p90_us']:.0f})"


def _energy(rows: Mapping[str, Any]) -> list[str]:
    measured = {shape: row["energy"] for shape, row in rows.items() if row.get("energy")}
    if not any(found for energy in measured.values() for found in energy.values()):
        return ["Energy: could not be read.", ""]
    columns, lines = ["shape", "variant", "mJ per call", "W"], []
    for shape, energy in measured.items():
        for name, found in energy.items():
            values = [f"{found['j'] * 1e3:.2f}", f"{found['w']:.0f}"] if found else ["-", "-"]
            lines.append([shape, name, *values])
    return ["Energy of the board, its idle power included:", "", *_table(columns, lines)]


def _parts(costs: Mapping[str, Any]) -> list[str]:
    lines = []
    for item in ("launches", ".item()", "polled flag"):
        for name, value in costs.get(item, {}).items():
            us = value.get("us") if isinstance(value, Mapping) else value
            if isinstance(us, (int, float)):
                what = name.removesuffix("_us").replace("_", " ")
                lines.append([f"{item}: {what}", f"{us:.3f}"])
    return _table(["part", "us"], lines)


def _nodes(costs: Mapping[str, Any]) -> list[str]:
    lines = [
        [f"{item}: {kind}", f"{us:.2f}"]
        for item, found in costs.items()
        for kind, us in found.get("node_us", {}).items()
    ]
    return _table(["IF node", "us per node"], lines)


def _exit_steps(steps: Mapping[str, Any]) -> list[str]:
    columns = ["exit step", "precision", "batch", "impl", "host", "call and wait", "in a graph"]
    lines = []
    for rows in steps.values():
        for row in rows if isinstance(rows, list) else ():
            graph = "-" if row["graph_us"] is None else f"{row['graph_us']:.2f}"
            lines.append([
                row["head"], row["dtype"], str(row["batch"]), row["impl"],
                f"{row['host_us']:.1f}", f"{row['call_us']:.1f}", graph,
            ])  # fmt: skip
    return _table(columns, lines)


def _computed(rows: Mapping[str, Any], measured: Mapping[str, float]) -> list[str]:
    here = constants(measured)
    found = {shape: computed_us(row, here) for shape, row in rows.items()}
    names = list(dict.fromkeys(name for computed in found.values() for name in computed))
    columns, lines = ["shape", "layer, us", "decision, nested, us", *names], []
    for shape, row in rows.items():
        decision, layer = decision_us(row, "graph nested"), row["layer_us"]
        cells = []
        for name in names:
            us = found[shape].get(name)
            wall = row["variants"].get(name, {}).get("wall")
            cells.append("-" if us is None or not wall else f"{us:.0f} / {wall['us']:.0f}")
        numbers = ["-" if us is None else f"{us:.1f}" for us in (layer, decision)]
        lines.append([shape, *numbers, *cells])
    said = ", ".join(f"{name} {us:.2f}" for name, us in measured.items()) or "none"
    return [*_table(columns, lines), f"Measured constants: {said}.", ""]
