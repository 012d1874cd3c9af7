"""From results-gpu.json to the tables of docs/scaling.md: `python benchmarks/render_gpu.py` writes them between its marks."""

import argparse
import json
from pathlib import Path
from typing import Any

from faceattr.report.markdown import table, write_between_marks

ROOT = Path(__file__).resolve().parents[1]
DENSE_BF16 = {"H100": 989, "H200": 989, "A100": 312}
"""TFLOP/s of NVIDIA's datasheets, without sparsity."""


def tables(results: dict[str, Any]) -> str:
    """Everything between the marks."""
    found = {
        (one["part"], one["case"], one["batch"], one["how"]): one
        for one in results["measurements"]
        if "error" not in one
    }
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    parts = [f"Measured on {machine.get('gpu')} with {machine.get('cores')} cores, {machine.get('date')}; {versions}."]
    parts += [f"`pytest -m gpu`: {one['tests']}." for one in found.values() if "tests" in one]
    parts += [_rates(found), _switches(found), _network(found, machine), _study(found), _pieces(found)]
    failed = [one for one in results["measurements"] if "error" in one]
    if failed:
        names = (f"{one['part']} {one['case']} {one['batch']} {one['how']} ({one['error'][:80]})" for one in failed)
        parts.append(f"Failed: {'; '.join(names)}.")
    if results["cut"]:
        parts.append(f"Not measured, for lack of time: {'; '.join(results['cut'])}.")
    return "\n\n".join(part for part in parts if part)


def _rate(found: dict, *key: Any) -> float | None:
    return found[key]["images_per_second"] if key in found else None


def _text(value: float | None, form: str = ",.0f") -> str:
    return "–" if value is None else format(value, form)


def _ratio(one: float | None, other: float | None) -> str:
    return "–" if one is None or other is None else f"{one / other:.2f}"


def _rates(found: dict) -> str:
    """Every case: ours, the ceiling, the peers."""
    keys = dict.fromkeys((case, batch) for part, case, batch, _ in found if part in ("ours", "ceiling", "peer"))
    rows = []
    for case, batch in keys:
        default, as_written = (_rate(found, "ours", case, batch, how) for how in ("default", "eager"))
        eager, replayed = (_rate(found, "ceiling", case, batch, how) for how in ("eager", "graph"))
        peers = [_rate(found, "peer", case, batch, who) for who in ("lightning", "timm")]
        cells = [_text(rate) for rate in (default, as_written, eager, replayed)]
        rows.append([case, str(batch), *cells, _ratio(default, eager), _ratio(default, replayed), *map(_text, peers)])
        rows[-1].append(_ratio(default, peers[0]))
    head = "case | batch | ours | ours, eager | ceiling, eager | ceiling, graph | ours to eager | ours to graph | Lightning | timm"
    return "Images/s of a steady epoch:\n\n" + table([*head.split(" | "), "ours to Lightning"], rows) if rows else ""


def _switches(found: dict) -> str:
    """What each switch changes against the default."""
    rows = []
    for part, case, batch, how in found:
        in_rates = how == "default" or (how == "eager" and batch <= 32)
        if part == "compile" or (part == "ours" and not in_rates):
            base = ("ceiling", case, batch, "eager") if how == "ceiling" else ("ours", case, batch, "default")
            rate, name = _rate(found, part, case, batch, how), f"compile, {how}" if part == "compile" else how
            rows.append([case, str(batch), name, _text(rate), _ratio(rate, _rate(found, *base))])
    return "Switches:\n\n" + table(["case", "batch", "switch", "images/s", "to without"], rows) if rows else ""


def _network(found: dict, machine: dict[str, Any]) -> str:
    """What a step costs: time of host and device, FLOPs, memory."""
    peak = next((value for name, value in DENSE_BF16.items() if name in str(machine.get("gpu"))), None)
    rows = []
    for (part, case, batch, how), one in found.items():
        if part not in ("ours", "ceiling") or how not in ("default", "eager", "graph"):
            continue
        flops = found.get(("ceiling", case, batch, "eager"), {}).get("flops_per_step")
        tera = flops / one["ms_per_step"] / 1e9 if flops and part == "ceiling" else None
        share = f" ({tera / peak:.0%})" if tera and peak else ""
        times = [_text(one["ms_per_step"], ".2f"), _text(one.get("host_ms_per_step"), ".2f")]
        rest = [_text(one.get("peak_memory_gb"), ".1f"), _text(one.get("utilisation"), ".0f")]
        rows.append([case, str(batch), f"{part}, {how}", *times, _text(tera) + share, *rest])
    head = ["case", "batch", "", "ms a step", "of it the host's", "TFLOP/s (of the peak)", "peak GB", "busy %"]
    return "A step:\n\n" + table(head, rows) if rows else ""


def _study(found: dict) -> str:
    rows = []
    for (part, _, _, how), one in found.items():
        if part == "study":
            interval = f"{one['val_accuracy']:.4f} ({one['val_accuracy_low']:.4f}–{one['val_accuracy_high']:.4f})"
            epochs = ", ".join(f"{seconds:.2f}" for seconds in one["epoch_seconds"])
            rows.append([how, f"{one['seconds']:.1f}", f"{one['seconds_before_training']:.1f}", epochs, interval])
    head = ["S2 on faces", "seconds", "of it before training", "training of each epoch, s", "validation accuracy"]
    return table(head, rows) if rows else ""


def _pieces(found: dict) -> str:
    rows = [
        [f"{case}, batch {batch}", part, f"{ms:.3f}", f"{host:.3f}"]
        for (kind, case, batch, _), one in found.items()
        if kind == "pieces"
        for part, (ms, host) in one["pieces_ms"].items()
    ]
    return table(["", "part of a step", "ms", "of it the host's"], rows) if rows else ""


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    results = json.loads((ROOT / "benchmarks" / "results-gpu.json").read_text(encoding="utf-8"))
    write_between_marks(ROOT / "docs" / "scaling.md", tables(results), "gpu")
