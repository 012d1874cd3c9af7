"""From results.json to the tables of docs/benchmarks.md: medians over the rounds, ratios within each round, and the verdicts."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import (
    BARS,
    CASES,
    FEEDING_BAR,
    GROWTH,
    GROWTH_BAR,
    MEMORY_BAR,
    PEERS,
    ROWS,
    START_BARS,
    WHOLE_BARS,
)

MARKS = "<!-- results -->", "<!-- /results -->"
WHO = PEERS | {"faceattr": "faceattr", "ceiling": "ceiling"}
Record = dict[str, Any]
Value = Callable[[Record], float]


def steady(run: Record) -> float:
    """Images per second of the epochs after the first."""
    return statistics.median(run["rates"][1:] or run["rates"])


def whole(epochs: int) -> Value:
    """Seconds from launch to the end of a run of so many epochs: measured where there were as many, else extended from the first
    epoch's end by the later epochs' median, validation included."""

    def seconds(run: Record) -> float:
        if len(run["epochs"]) >= epochs:
            return run["seconds"]
        return run["first_epoch"] + (epochs - 1) * statistics.median(run["epochs"][1:] or run["epochs"])

    return seconds


class Runs:
    """The measurements by case and competitor."""

    def __init__(self, runs: list[Record]) -> None:
        self.runs = runs

    def of(self, case: str, who: str) -> dict[int, Record]:
        return {run["round"]: run for run in self.runs if run["case"] == case and run["who"] == who}

    def median(self, case: str, who: str, value: Value) -> float | None:
        found = [value(run) for run in self.of(case, who).values()]
        return statistics.median(found) if found else None

    def compare(self, case: str, who: str, other: str, value: Value, by: str = "ratio") -> list[float]:
        """`value` of `who` over (or minus) that of `other`, in each round that has both."""
        ours, theirs = self.of(case, who), self.of(case, other)
        pairs = [(value(ours[number]), value(theirs[number])) for number in sorted(ours.keys() & theirs.keys())]
        return [a / b if by == "ratio" else a - b for a, b in pairs]


def verdict(found: list[float], bar: float | None, *, least: bool = True, unit: str = "×") -> str:
    """Median (least–most) and whether the bar is met: at least it, or at most it."""
    if not found:
        return "–"
    middle = statistics.median(found)
    text = f"{number(middle)}{unit}" + (f" ({number(min(found))}–{number(max(found))})" if len(found) > 1 else "")
    if bar is None:
        return text
    met = middle >= bar if least else middle <= bar
    return f"{text}; {'≥' if least else '≤'} {bar:g}: {'met' if met else '**not met**'}"


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def tables(results: Record) -> str:
    """Everything between the marks."""
    runs = Runs(results["runs"])
    if not runs.runs:
        return "Not measured yet."
    there = {name: case for name, case in CASES.items() if any(run["case"] == name for run in runs.runs)}
    parts = [_machine(results)]
    if there:
        parts += ["### Images per second in the steady epochs", _rates(runs, there)]
        parts += ["### Ratios, and the bars"]
    parts += [_ratios(runs, there), "### Other bars", _others(runs)]
    if there:
        parts += ["### Start, first epoch and memory", _details(runs, there)]
    return "\n\n".join(part for part in parts if part)


def _machine(results: Record) -> str:
    machine, runs = results["machine"], results["runs"]
    versions = ", ".join(f"{name} {value}" for name, value in machine.get("versions", {}).items())
    commits = ", ".join(sorted({str(run["commit"]) for run in runs}))
    days = sorted({run["date"][:10] for run in runs})
    return (
        f"{machine.get('cpu')}, {machine.get('cores')} cores ({'with' if machine.get('bf16') else 'without'} bf16 "
        f"instructions), {machine.get('memory_gb')} GB, {machine.get('system')}. {versions}. "
        f"faceattr {commits}, measured {days[0]}{f' to {days[-1]}' if len(days) > 1 else ''}, "
        f"{max(run['round'] for run in runs)} rounds."
    )


def _rates(runs: Runs, cases: dict) -> str:
    rows = []
    for name, case in cases.items():
        epoch = f"{case.train} images of {case.size[0]}×{case.size[1]}, batch {case.batch}"
        rows.append([case.title, epoch, *(number(runs.median(name, who, steady)) for who in WHO)])
    return table(["case", "an epoch", *WHO.values()], rows)


def _ratios(runs: Runs, cases: dict) -> str:
    rows = []
    for name, case in cases.items():
        bars = BARS[name]
        cells = [verdict(runs.compare(name, "faceattr", who, steady), bars.get(who)) for who in (*PEERS, "ceiling")]
        rows.append([case.title, *cells])
        if case.whole:
            found = {who: runs.compare(name, who, "faceattr", whole(case.whole)) for who in PEERS}
            cells = [verdict(found[who], WHOLE_BARS.get(who)) for who in PEERS]
            rows.append([f"the same, a whole run of {case.whole} epochs", *cells, "–"])
    feeding = runs.compare("feeding", "faceattr", "lightning", steady)
    if feeding:
        rows.append(["feeding, per core, no augmentation", "–", verdict(feeding, FEEDING_BAR), "–", "–"])
    return table(["faceattr's rate to that of", *PEERS.values(), "the ceiling"], rows) if rows else ""


def _others(runs: Runs) -> str:
    rows = []
    least, most = str(GROWTH[0]), str(GROWTH[-1])
    if found := runs.compare("growth", most, least, lambda run: 1 / steady(run)):
        each = (f"{n:,}: {number(1e6 / rate)}" for n in GROWTH if (rate := runs.median("growth", str(n), steady)))
        text = f"time per image, {GROWTH[-1]:,} images to {GROWTH[0]:,} (µs at {', '.join(each)})"
        rows.append([text, verdict(found, GROWTH_BAR, least=False)])
    for kind, meaning in (("own", "own (anonymous) memory"), ("pss", "the files' mapped pages included")):
        value = lambda run, kind=kind: run["memory"][kind]  # noqa: E731
        if found := runs.compare("evaluation", str(ROWS[1]), str(ROWS[0]), value, by="difference"):
            ends = " and ".join(number(runs.median("evaluation", str(n), value)) for n in ROWS)
            text = f"peak memory, evaluating {ROWS[1]:,} rows to {ROWS[0]:,}: {meaning} (MB: {ends})"
            rows.append([text, verdict(found, MEMORY_BAR, least=False, unit=" MB")])
    for who, name, what in (
        ("first_step", "first_step", "launch to the first optimizer step, sample data cached"),
        ("compose", "seconds", "`train.py --cfg job`"),
    ):
        found = [run[name] for run in runs.of("startup", who).values()]
        if found:
            rows.append([what, verdict(found, START_BARS[who], least=False, unit=" s")])
    for who in ("lightning", "faceattr"):
        if rate := runs.median("feeding", who, steady):
            rows.append([f"feeding: images/s of one core, {WHO[who]}", number(rate)])
    return table(["what", "found"], rows) if rows else "None measured."


def _details(runs: Runs, cases: dict) -> str:
    rows = []
    for name, case in cases.items():
        for who in (*PEERS, "faceattr"):
            values: list[Value] = [lambda run: run["rates"][0], steady, lambda run: run["first_epoch"]]
            values += [lambda run: run["seconds"], lambda run: run["memory"]["pss"]]
            if runs.of(name, who):
                epochs = f"{len(next(iter(runs.of(name, who).values()))['epochs'])}"
                cells = [number(runs.median(name, who, value)) for value in values]
                whole_run = number(runs.median(name, who, whole(case.whole))) if case.whole else "–"
                rows.append([case.title.split(",")[0], WHO[who], *cells[:4], epochs, whole_run, cells[4]])
    head = ["case", "", "first epoch, images/s", "steady, images/s", "launch to first epoch's end, s"]
    return table([*head, "process, s", "epochs in it", "50 epochs, s", "peak memory, MB"], rows)


def insert(file: Path, text: str) -> None:
    """Put `text` between the marks of `file`."""
    before, _, rest = file.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    file.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}", encoding="utf-8")
