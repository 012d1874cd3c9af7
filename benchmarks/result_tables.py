"""Makes the tables of docs/benchmarks.md from results.json: medians over the rounds, ratios within each round, targets."""

import statistics
from collections.abc import Callable
from typing import Any

from cases import (
    CASES,
    DATA_LOADING_TARGET,
    EVALUATION_ROWS,
    GROWTH_IMAGES,
    GROWTH_TARGET,
    MEMORY_TARGET,
    PEERS,
    START_TARGETS,
    TARGETS,
    WHOLE_RUN_TARGETS,
    Case,
)

from faceattr.report.markdown import table

COMPETITORS = PEERS | {"faceattr": "faceattr", "bare_loop": "bare loop"}
Record = dict[str, Any]
Value = Callable[[Record], float]


def steady_rate(run: Record) -> float:
    """Images per second: the median of the epochs after the first."""
    return statistics.median(run["rates"][1:] or run["rates"])


def whole_run_seconds(epochs: int) -> Value:
    """A function: a run's record → seconds from launch to the end of a run of that many epochs.

    It is the measured time if the run had that many epochs. Else: the time to the end of the first epoch, plus the median of
    the later epochs (validation included) for each further one.
    """

    def seconds(run: Record) -> float:
        if len(run["epochs"]) >= epochs:
            return run["seconds"]
        return run["first_epoch"] + (epochs - 1) * statistics.median(run["epochs"][1:] or run["epochs"])

    return seconds


class Runs:
    """The measurements, by case and variant (a competitor, a number of images, …)."""

    def __init__(self, runs: list[Record]) -> None:
        self.runs = runs

    def by_round(self, case: str, variant: str) -> dict[int, Record]:
        return {run["round"]: run for run in self.runs if run["case"] == case and run["variant"] == variant}

    def median(self, case: str, variant: str, value: Value) -> float | None:
        values = [value(run) for run in self.by_round(case, variant).values()]
        return statistics.median(values) if values else None

    def ratios(self, case: str, first: str, second: str, value: Value) -> list[float]:
        """`value` of `first` divided by that of `second`, for each round that has both."""
        return [a / b for a, b in self._pairs(case, first, second, value)]

    def differences(self, case: str, first: str, second: str, value: Value) -> list[float]:
        """`value` of `first` minus that of `second`, for each round that has both."""
        return [a - b for a, b in self._pairs(case, first, second, value)]

    def _pairs(self, case: str, first: str, second: str, value: Value) -> list[tuple[float, float]]:
        ours, theirs = self.by_round(case, first), self.by_round(case, second)
        return [(value(ours[number]), value(theirs[number])) for number in sorted(ours.keys() & theirs.keys())]


def format_values(values: list[float], unit: str = "×") -> str:
    """Median (smallest–largest)."""
    if not values:
        return "–"
    spread = f" ({format_number(min(values))}–{format_number(max(values))})" if len(values) > 1 else ""
    return f"{format_number(statistics.median(values))}{unit}{spread}"


def judge_at_least(values: list[float], target: float | None) -> str:
    """Ratios and whether their median reaches the target."""
    return _judge(values, target, "≥", "×")


def judge_at_most(values: list[float], target: float, unit: str) -> str:
    """Values and whether their median stays within the target."""
    return _judge(values, target, "≤", unit)


def _judge(values: list[float], target: float | None, sign: str, unit: str) -> str:
    text = format_values(values, unit)
    if not values or target is None:
        return text
    median = statistics.median(values)
    met = median >= target if sign == "≥" else median <= target
    return f"{text}; {sign} {target:g}: {'met' if met else '**not met**'}"


def format_number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"


def all_tables(results: Record) -> str:
    """Everything between the marks."""
    runs = Runs(results["runs"])
    if not runs.runs:
        return "Not measured yet."
    cases = {name: case for name, case in CASES.items() if any(run["case"] == name for run in runs.runs)}
    parts = [machine_line(results)]
    if cases:
        parts += ["### Images per second in the steady epochs", rates_table(runs, cases), "### Ratios and targets"]
    parts += [ratios_table(runs, cases), "### Other targets", other_targets_table(runs)]
    if cases:
        parts += ["### Start, first epoch and memory", details_table(runs, cases)]
    return "\n\n".join(part for part in parts if part)


def machine_line(results: Record) -> str:
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


def rates_table(runs: Runs, cases: dict[str, Case]) -> str:
    rows = []
    for name, case in cases.items():
        epoch = f"{case.train} images of {case.size[0]}×{case.size[1]}, batch {case.batch}"
        rows.append([case.title, epoch, *(format_number(runs.median(name, who, steady_rate)) for who in COMPETITORS)])
    return table(["case", "one epoch", *COMPETITORS.values()], rows)


def ratios_table(runs: Runs, cases: dict[str, Case]) -> str:
    rows = []
    for name, case in cases.items():
        ratios = {who: runs.ratios(name, "faceattr", who, steady_rate) for who in (*PEERS, "bare_loop")}
        rows.append([case.title, *(judge_at_least(ratios[who], TARGETS[name].get(who)) for who in ratios)])
        if case.whole_run:
            seconds = whole_run_seconds(case.whole_run)
            cells = [judge_at_least(runs.ratios(name, w, "faceattr", seconds), WHOLE_RUN_TARGETS.get(w)) for w in PEERS]
            rows.append([f"the same, a whole run of {case.whole_run} epochs", *cells, "–"])
    loading = runs.ratios("data_loading", "faceattr", "lightning", steady_rate)
    if loading:
        row = ["data loading, per core, no augmentation", "–", judge_at_least(loading, DATA_LOADING_TARGET), "–", "–"]
        rows.append(row)
    head = ["images per second of faceattr, divided by those of", *PEERS.values(), "bare loop"]
    return table(head, rows) if rows else ""


def other_targets_table(runs: Runs) -> str:
    rows = [*_growth_rows(runs), *_memory_rows(runs)]
    for variant, key, label in (
        ("first_step", "first_step", "launch to the first optimizer step, sample data cached"),
        ("compose", "seconds", "`train.py --cfg job`"),
    ):
        values = [run[key] for run in runs.by_round("start_up", variant).values()]
        if values:
            rows.append([label, judge_at_most(values, START_TARGETS[variant], " s")])
    for competitor in ("lightning", "faceattr"):
        if rate := runs.median("data_loading", competitor, steady_rate):
            rows.append([f"data loading: images/s of one core, {COMPETITORS[competitor]}", format_number(rate)])
    return table(["what", "measured"], rows) if rows else "None measured."


def _growth_rows(runs: Runs) -> list[list[str]]:
    fewest, most = str(GROWTH_IMAGES[0]), str(GROWTH_IMAGES[-1])
    ratios = runs.ratios("growth", most, fewest, lambda run: 1 / steady_rate(run))
    if not ratios:
        return []
    rates = {n: runs.median("growth", str(n), steady_rate) for n in GROWTH_IMAGES}
    each = ", ".join(f"{n:,}: {format_number(1e6 / rate)}" for n, rate in rates.items() if rate)
    label = f"time per image with {int(most):,} images, divided by that with {int(fewest):,} (µs at {each})"
    return [[label, judge_at_most(ratios, GROWTH_TARGET, "×")]]


def _memory_rows(runs: Runs) -> list[list[str]]:
    rows, (few, many) = [], EVALUATION_ROWS
    for kind, meaning in (("own", "own (anonymous) memory"), ("pss", "with the mapped pages of files")):
        value = lambda run, kind=kind: run["memory"][kind]  # noqa: E731
        differences = runs.differences("evaluation", str(many), str(few), value)
        if differences:
            ends = " and ".join(format_number(runs.median("evaluation", str(n), value)) for n in (few, many))
            label = f"peak memory, evaluating {many:,} rows, minus that for {few:,}: {meaning} (MB: {ends})"
            rows.append([label, judge_at_most(differences, MEMORY_TARGET, " MB")])
    return rows


def details_table(runs: Runs, cases: dict[str, Case]) -> str:
    values: list[Value] = [lambda run: run["rates"][0], steady_rate, lambda run: run["first_epoch"]]
    values += [lambda run: run["seconds"], lambda run: run["memory"]["pss"]]
    rows = []
    for name, case in cases.items():
        for who in (*PEERS, "faceattr"):
            if measured := runs.by_round(name, who):
                epochs = str(len(next(iter(measured.values()))["epochs"]))
                cells = [format_number(runs.median(name, who, value)) for value in values]
                whole = "–"
                if case.whole_run:
                    whole = format_number(runs.median(name, who, whole_run_seconds(case.whole_run)))
                rows.append([case.title.split(",")[0], COMPETITORS[who], *cells[:4], epochs, whole, cells[4]])
    head = [
        "case",
        "competitor",
        "first epoch, images/s",
        "steady, images/s",
        "launch to the end of the first epoch, s",
    ]
    return table([*head, "process, s", "epochs in it", "50 epochs, s", "peak memory, MB"], rows)
