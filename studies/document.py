"""From results.json to docs/studies-results.md: published against ours, the claims, the commands; and the figure."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import claims
import numpy as np
from claims import Record, Runs, images_of
from plan import PRESETS

from faceattr.metrics.intervals import over_runs, wilson

BUDGETS = {"study": "Study form", "quick": "Quick form"}
MARKS = "<!-- results -->", "<!-- /results -->"


def write(runs: Sequence[Record], page: Path, picture: Path) -> None:
    """Replaces what stands between the marks in the page, and draws the picture."""
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    parts = [part for budget in BUDGETS for part in sections(Runs(runs, budget), budget)]
    page.write_text(f"{before}{MARKS[0]}\n\n" + "\n\n".join(parts) + f"\n\n{MARKS[1]}{after}", encoding="utf-8")
    draw(runs, picture)
    print(f"{page}\n{picture}")


def sections(runs: Runs, budget: str) -> list[str]:
    """The tables of one budget, as far as there are runs."""
    made = [run for job in runs.by for run in runs.of(job)]
    if not made:
        return []
    title = f"## {BUDGETS[budget]}"
    seconds = sum(run["seconds"] for run in made)
    where = f"{made[0]['device'].replace(' × 1', '')}, precision {made[0]['precision']}"
    about = f"{len(made)} runs, {seconds / 60:,.0f} core-minutes in all. {where}."
    parts = [title, about, "### Published and ours", published_table(runs)]
    if rows := claims.table(runs):
        head = ["claim", "", "compared", "data", "first", "second", "difference (95%)", "each seed"]
        head += ["McNemar, pooled", "verdict"]
        whole = "\n".join(claims.together(rows))
        parts += ["### Do the conclusions hold?", *([whole] if whole else []), markdown(head, rows)]
    if rows := claims.cross(runs):
        head = [
            "weights",
            "scaling",
            "validation accuracy",
            "minus S4-A (95%)",
            "",
            "minus `unit`, same weights (95%)",
            "data",
        ]
        parts += ["### Claim 3 crossed: frozen VGG16 by weights and preprocessing", markdown(head, rows)]
    commands = "\n".join(run["command"] for job in runs.by for run in runs.of(job)[:1])
    title = "### Commands (the first seed of each; ROOT stands for the folder)"
    return [*parts, title, f"```\n{commands}\n```"]


def compared(runs: Sequence[Record], number: int = 0) -> Record | None:
    """The preset's published figure `number` and ours with 95% intervals (None without a figure), and the rule's verdict; None
    where ours was not measured.

    The interval of ours takes in both chances: which images were judged (Wilson) and how training went (Student's t over the
    seeds).
    """
    entry = runs[0]["published"][number]
    found = [run["metrics"].get(entry["split"], {}) for run in runs]
    values = [figures[entry["metric"]] for figures in found if figures.get(entry["metric"]) is not None]
    if not values:
        return None
    mean, n = statistics.fmean(values), found[0]["n"]
    low, high = wilson(mean, n)
    training = over_runs(np.array(values))
    ours = (
        mean,
        max(0.0, mean - float(np.hypot(mean - low, training))),
        min(1.0, mean + float(np.hypot(high - mean, training))),
    )
    theirs = None if entry["value"] is None else (entry["value"], *wilson(entry["value"], entry["n"]))
    overlap = theirs is not None and ours[1] <= theirs[2] and theirs[1] <= ours[2]
    if runs[0]["data"] != "own":
        said = "other data"
    elif theirs is None:
        said = "no figure published"
    elif runs[0]["budget"] != "study":
        said = "shortened"
    else:
        said = "reproduced" if overlap else "differs"
    return {
        "entry": entry,
        "ours": ours,
        "n": n,
        "theirs": theirs,
        "sd": spread(values),
        "overlap": overlap,
        "said": said,
    }


def spread(values: Sequence[float]) -> str:
    return f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""


def published_table(runs: Runs) -> str:
    """A row per preset and published figure."""
    rows = []
    for job in PRESETS:
        of = runs.of(job)
        for number in range(len(of[0]["published"]) if of else 0):
            c = compared(of, number)
            if c is None:
                continue
            theirs = f"{c['theirs'][0]:.3f} ({c['theirs'][1]:.3f}–{c['theirs'][2]:.3f})" if c["theirs"] else "none"
            overlap = "–" if c["theirs"] is None else "yes" if c["overlap"] else "no"
            sizes = of[0]["parameters"]
            rows.append(
                [
                    f"`{job}`",
                    f"{c['entry']['split']} {c['entry']['metric']}",
                    theirs,
                    f"{c['ours'][0]:.3f}{c['sd']} ({c['ours'][1]:.3f}–{c['ours'][2]:.3f})",
                    f"{c['n']:,}",
                    str(len(of)),
                    overlap,
                    f"{sizes['total']:,} / {sizes['trainable']:,}",
                    f"{statistics.median(run['seconds'] for run in of):,.0f}",
                    images_of(of[0]),
                    c["said"],
                ]
            )
    head = ["preset", "figure", "published (95%)", "ours, mean ± sd (95%)", "n", "seeds", "intervals overlap"]
    return markdown([*head, "parameters without statistics, trained", "seconds a run", "data", "verdict"], rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    assert all(len(row) == len(head) for row in rows), f"a row without its column: {head}"
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(runs: Sequence[Record], picture: Path) -> None:
    """A row per preset: the published interval, and ours in each budget."""
    import matplotlib
    from matplotlib.figure import Figure

    from faceattr.report.charts import INK, MUTED, STYLE

    by_budget = {budget: Runs(runs, budget) for budget in BUDGETS}
    jobs = [job for job in PRESETS if any(of.of(job) for of in by_budget.values())]
    looks = {"published": ("s", INK, -0.22), "study": ("o", "#0072b2", 0.0), "quick": ("^", "#d55e00", 0.22)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 0.52 * len(jobs) + 1.2))
        axes = figure.add_subplot()
        for row, job in enumerate(jobs):
            found = {budget: c for budget, of in by_budget.items() if of.of(job) and (c := compared(of.of(job)))}
            bars = {budget: c["ours"] for budget, c in found.items()} | {
                "published": next(iter(found.values()))["theirs"]
            }
            for name, bar in bars.items():
                if bar:
                    marker, colour, offset = looks[name]
                    error = [[bar[0] - bar[1]], [bar[2] - bar[0]]]
                    axes.errorbar(
                        bar[0], row + offset, xerr=error, fmt=marker, color=colour, markersize=5, linewidth=1.4
                    )
        for name, label in {"published": "published", "study": "ours, study form", "quick": "ours, quick form"}.items():
            axes.plot([], [], looks[name][0], color=looks[name][1], label=label)
        axes.set_yticks(range(len(jobs)), jobs, color=INK)
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.set(xlabel="accuracy, 95% interval; ours on stand-ins where the study's own images were not there")
        axes.xaxis.label.set_color(MUTED)
        figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9)
        figure.savefig(picture)
