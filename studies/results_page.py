"""Makes docs/studies-results.md from results.json: published and ours, the claims, the commands; and the figure."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import claims
import numpy as np
from claims import Record, Runs, data_name
from jobs import PRESETS

from faceattr.metrics.intervals import over_runs, wilson
from faceattr.report.markdown import table, write_between_marks

BUDGETS = {"study": "Study form", "quick": "Quick form"}
CLAIM_HEAD = ["claim", "", "compared", "data", "first", "second", "difference (95%)", "each seed", "McNemar, pooled"]
WEIGHTS_HEAD = [
    "weights",
    "scaling",
    "validation accuracy",
    "minus S4-A (95%)",
    "",
    "minus `unit`, same weights (95%)",
    "data",
]
PUBLISHED_HEAD = ["preset", "figure", "published (95%)", "ours, mean ± sd (95%)", "n", "seeds", "intervals overlap"]
PUBLISHED_HEAD += ["parameters without statistics, trained", "seconds a run", "data", "verdict"]


def write(runs: Sequence[Record], page: Path, picture: Path) -> None:
    """Write the tables into the page, between its marks, and draw the picture."""
    parts = [part for budget in BUDGETS for part in sections(Runs(runs, budget), budget)]
    write_between_marks(page, "\n\n".join(parts))
    draw(runs, picture)
    print(f"{page}\n{picture}")


def sections(runs: Runs, budget: str) -> list[str]:
    """The headings and tables of one budget, as far as there are runs."""
    made = [run for job in runs.by_job for run in runs.of_job(job)]
    if not made:
        return []
    minutes = sum(run["seconds"] for run in made) / 60
    device = f"{made[0]['device'].replace(' × 1', '')}, precision {made[0]['precision']}"
    parts = [f"## {BUDGETS[budget]}", f"{len(made)} runs, {minutes:,.0f} core-minutes in all. {device}."]
    parts += ["### Published and ours", published_table(runs)]
    if rows := claims.claim_rows(runs):
        summary = "\n".join(claims.summary(rows))
        parts += ["### Do the conclusions hold?", *([summary] if summary else [])]
        parts.append(table([*CLAIM_HEAD, "verdict"], rows))
    if rows := claims.weights_and_scaling_rows(runs):
        parts += ["### Claim 3: frozen VGG16 by weights and input scaling", table(WEIGHTS_HEAD, rows)]
    commands = "\n".join(run["command"] for job in runs.by_job for run in runs.of_job(job)[:1])
    return [*parts, "### Commands (the first seed of each; ROOT stands for the folder)", f"```\n{commands}\n```"]


def compare_with_published(runs: Sequence[Record], number: int = 0) -> Record | None:
    """Published figure `number` of a preset beside ours, with 95% intervals and a verdict; None where ours was not measured.

    The interval of ours contains both sources of chance: which images were judged (Wilson), and how training went (Student's
    t over the seeds). `theirs` is None where the study printed no figure.
    """
    entry = runs[0]["published"][number]
    metrics = [run["metrics"].get(entry["split"], {}) for run in runs]
    values = [each[entry["metric"]] for each in metrics if each.get(entry["metric"]) is not None]
    if not values:
        return None
    mean, n = statistics.fmean(values), metrics[0]["n"]
    low, high = wilson(mean, n)
    training = over_runs(np.array(values))
    lower, upper = (float(np.hypot(half, training)) for half in (mean - low, high - mean))
    ours = (mean, max(0.0, mean - lower), min(1.0, mean + upper))
    theirs = None if entry["value"] is None else (entry["value"], *wilson(entry["value"], entry["n"]))
    overlap = theirs is not None and ours[1] <= theirs[2] and theirs[1] <= ours[2]
    sd = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    verdict = _verdict(runs[0], theirs is not None, overlap)
    return {"entry": entry, "ours": ours, "n": n, "theirs": theirs, "sd": sd, "overlap": overlap, "verdict": verdict}


def _verdict(run: Record, published: bool, overlap: bool) -> str:
    """Only a full run on the images of the study itself reproduces a published figure or differs from it."""
    if run["data"] != "own":
        return "other data"
    if not published:
        return "no figure published"
    if run["budget"] != "study":
        return "shortened"
    return "reproduced" if overlap else "differs"


def published_table(runs: Runs) -> str:
    """A row per preset and published figure."""
    rows = []
    for job in PRESETS:
        of_job = runs.of_job(job)
        for number in range(len(of_job[0]["published"]) if of_job else 0):
            if compared := compare_with_published(of_job, number):
                rows.append(_published_row(job, of_job, compared))
    return table(PUBLISHED_HEAD, rows)


def _published_row(job: str, runs: Sequence[Record], compared: Record) -> list[str]:
    theirs, ours, parameters = compared["theirs"], compared["ours"], runs[0]["parameters"]
    return [
        f"`{job}`",
        f"{compared['entry']['split']} {compared['entry']['metric']}",
        f"{theirs[0]:.3f} ({theirs[1]:.3f}–{theirs[2]:.3f})" if theirs else "none",
        f"{ours[0]:.3f}{compared['sd']} ({ours[1]:.3f}–{ours[2]:.3f})",
        f"{compared['n']:,}",
        str(len(runs)),
        "–" if theirs is None else "yes" if compared["overlap"] else "no",
        f"{parameters['total']:,} / {parameters['trainable']:,}",
        f"{statistics.median(run['seconds'] for run in runs):,.0f}",
        data_name(runs[0]),
        compared["verdict"],
    ]


def draw(runs: Sequence[Record], picture: Path) -> None:
    """A row per preset: the published interval, and ours in each budget."""
    import matplotlib
    from matplotlib.figure import Figure

    from faceattr.report.charts import INK, MUTED, STYLE, save

    by_budget = {budget: Runs(runs, budget) for budget in BUDGETS}
    jobs = [job for job in PRESETS if any(of_budget.of_job(job) for of_budget in by_budget.values())]
    looks = {"published": ("s", INK, -0.22), "study": ("o", "#0072b2", 0.0), "quick": ("^", "#d55e00", 0.22)}
    labels = {"published": "published", "study": "ours, study form", "quick": "ours, quick form"}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 0.52 * len(jobs) + 1.2))
        axes = figure.add_subplot()
        for row, job in enumerate(jobs):
            for name, (value, low, high) in _intervals(by_budget, job).items():
                marker, colour, offset = looks[name]
                style = {"fmt": marker, "color": colour, "markersize": 5, "linewidth": 1.4}
                axes.errorbar(value, row + offset, xerr=[[value - low], [high - value]], **style)
        for name, label in labels.items():
            axes.plot([], [], looks[name][0], color=looks[name][1], label=label)
        axes.set_yticks(range(len(jobs)), jobs, color=INK)
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.set(xlabel="accuracy, 95% interval; ours on stand-ins where the images of the study were not available")
        axes.xaxis.label.set_color(MUTED)
        figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9)
        save(figure, picture)


def _intervals(by_budget: dict[str, Runs], job: str) -> dict[str, tuple[float, float, float]]:
    """Value, low and high of a job: ours by budget, and `published` where there is a figure."""
    intervals, published = {}, None
    for budget, runs in by_budget.items():
        if (of_job := runs.of_job(job)) and (compared := compare_with_published(of_job)):
            intervals[budget], published = compared["ours"], published or compared["theirs"]
    return intervals | ({"published": published} if published else {})
