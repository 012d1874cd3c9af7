"""What the studies conclude, tested on our runs: pairs of jobs on the same images, seed by seed, and a rule for each verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from plan import CAFFE, CROSS, V1

from faceattr.metrics.intervals import Paired, Z, over_runs, paired

Record = dict[str, Any]
LEAST_SEEDS = 3
MARGIN = 0.02
"""Of accuracy: so much better counts as no better."""


@dataclass(frozen=True)
class Claim:
    """`better` is claimed to be more often right than each of `than`; with `no_better` that it is not."""

    number: str
    text: str
    better: str
    than: tuple[str, ...]
    no_better: bool = False


CLAIMS = (
    Claim("1", "batch norm and dropout help: S4-B > A", "s4b", ("s4a",)),
    Claim("2", "augmentation helps: S4-C > A", "s4c", ("s4a",)),
    Claim("3", "a frozen ImageNet VGG16 is worse than a small CNN: S4-D < A", "s4a", ("s4d",)),
    Claim("4", "full fine-tuning is best: S4-F > all others", "s4f", ("s4a", "s4b", "s4c", "s4d", "s4e")),
    Claim("6", "S2: the head alone is worse than the last block", "s2_celeba_vgg16_last_block_softmax", ("s2_frozen",)),
    Claim(
        "6", "S2: training everything is no better", "s2_full", ("s2_celeba_vgg16_last_block_softmax",), no_better=True
    ),
)


class Runs:
    """The runs of one budget: by job, and by seed."""

    def __init__(self, runs: Sequence[Record], budget: str) -> None:
        self.by: dict[str, dict[int, Record]] = {}
        for run in runs:
            if run["budget"] == budget:
                self.by.setdefault(run["job"], {})[run["seed"]] = run

    def of(self, job: str) -> list[Record]:
        return [run for _, run in sorted(self.by.get(job, {}).items())]

    def shared(self, *jobs: str) -> list[int]:
        """The seeds that all these jobs have run with."""
        return sorted(set.intersection(*(set(self.by.get(job, {})) for job in jobs)))

    def right(self, job: str, seeds: Sequence[int], split: str) -> np.ndarray:
        """Booleans [seeds, images]."""
        runs = [self.by[job][seed] for seed in seeds]
        bits = [np.unpackbits(np.frombuffer(bytes.fromhex(run["right"][split]), np.uint8)) for run in runs]
        return np.stack([b[: run["metrics"][split]["n"]] for b, run in zip(bits, runs, strict=True)]).astype(bool)

    def pair(self, better: str, than: str, split: str = "val") -> tuple[Paired, list[float]] | None:
        """The pooled comparison and each seed's difference; None where no seed is in both."""
        seeds = self.shared(better, than)
        if not seeds:
            return None
        ours, theirs = (self.right(job, seeds, split) for job in (better, than))
        return paired(ours, theirs), (ours.mean(1) - theirs.mean(1)).tolist()


def verdict(found: Paired, each: Sequence[float], no_better: bool = False) -> str:
    """An interval beside zero and every seed on its side decide, else it is open. `no_better` holds where the interval ends
    below MARGIN: not to have seen a difference is not enough. Too few seeds give no verdict."""
    if len(each) < LEAST_SEEDS:
        return f"none: {len(each)} seed{'s' * (len(each) > 1)}"
    if found.low > 0 and min(each) > 0:
        return "**does not hold**" if no_better else "**holds**"
    if no_better:
        return "**holds**" if found.high < MARGIN else "open"
    return "**does not hold**" if found.high < 0 and max(each) < 0 else "open"


def gap(runs: Runs, job: str, other: str) -> tuple[list[str], str] | None:
    """Claim 5: training minus validation accuracy, each of the trained model without augmentation, of `job` and `other`."""
    seeds = runs.shared(job, other)
    if len(seeds) < LEAST_SEEDS:
        return None
    by_split = {
        split: [runs.right(name, seeds, split).astype(float) for name in (other, job)] for split in ("train", "val")
    }
    gaps = [train.mean(1) - val.mean(1) for train, val in zip(*by_split.values(), strict=True)]
    each = gaps[0] - gaps[1]
    images = sum(float((first - second).mean(0).var(ddof=1)) / first.shape[1] for first, second in by_split.values())
    half = float(np.hypot(Z * images**0.5, over_runs(each)))
    pair = Paired(float(each.mean()), float(each.mean()) - half, float(each.mean()) + half, 0, 0, 1.0)
    cells = [f"{gaps[1].mean():.3f}", f"{gaps[0].mean():.3f}", signed(pair), ", ".join(f"{d:+.3f}" for d in each)]
    return cells, verdict(pair, each.tolist())


def slowdown(runs: Runs, job: str, other: str) -> tuple[list[str], str] | None:
    """Claim 7: images per second of `job` over that of `other`, seed by seed."""
    seeds = runs.shared(job, other)
    if len(seeds) < LEAST_SEEDS:
        return None
    rates = {name: [runs.by[name][seed]["rate"] for seed in seeds] for name in (job, other)}
    ratios = [a / b for a, b in zip(rates[job], rates[other], strict=True)]
    said = "**holds**" if min(ratios) > 0.95 else "**does not hold**" if max(ratios) < 0.95 else "open"
    cells = [f"{np.median(rates[name]):,.0f} images/s" for name in (job, other)]
    return [
        *cells,
        f"{np.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})",
        ", ".join(f"{r:.2f}" for r in ratios),
    ], said


def signed(found: Paired) -> str:
    return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def table(runs: Runs) -> list[list[str]]:
    """RowArray of: claim, the two that are compared, data, their figures, difference, each seed's, McNemar, verdict."""
    rows = []
    for claim in CLAIMS:
        for than in claim.than:
            compared = runs.pair(claim.better, than)
            if compared is None:
                continue
            found, each = compared
            seeds = runs.shared(claim.better, than)
            figures = [f"{runs.right(job, seeds, 'val').mean():.3f}" for job in (claim.better, than)]
            cells = [
                *figures,
                signed(found),
                ", ".join(f"{d:+.3f}" for d in each),
                f"{found.wins:,} : {found.losses:,}, {found.p_text}",
                verdict(found, each, claim.no_better),
            ]
            rows.append([claim.number, claim.text, *who(runs, claim.better, than), *cells])
    for number, text, jobs, compare in (
        ("5", "augmentation narrows the gap between training and validation: S4-C, A", ("s4c", "s4a"), gap),
        (
            "7",
            "two more conv layers do not slow training: S3",
            ("s3_celeba575_cnn7", "s3_celeba575_three_conv"),
            slowdown,
        ),
    ):
        if found_too := compare(runs, *jobs):
            cells, said = found_too
            rows.append([number, text, *who(runs, *jobs), *cells, "–", said])
    return sorted(rows, key=lambda row: row[0])


def who(runs: Runs, job: str, other: str) -> list[str]:
    """What is compared, and on which images."""
    return [f"`{job}` – `{other}`", images_of(runs.of(job)[0])]


def images_of(run: Record) -> str:
    """The stand-in by name, or `own`."""
    return "own" if run["data"] == "own" else f"`{run['data']}`"


def together(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line per claim: it holds if all of its comparisons do, does not if one does not, and is open otherwise."""
    lines = []
    rows = [row for row in rows if not row[-1].startswith("none")]
    for number in dict.fromkeys(row[0] for row in rows):
        of = [row for row in rows if row[0] == number]
        said = [row[-1].strip("*") for row in of]
        whole = (
            "does not hold"
            if "does not hold" in said
            else "holds"
            if all(s.startswith("holds") for s in said)
            else "open"
        )
        counted = (
            f" ({sum(s.startswith('holds') for s in said)} of {len(said)} comparisons hold)" if len(said) > 1 else ""
        )
        lines.append(f"{number}. {'; '.join(dict.fromkeys(row[1] for row in of))}: **{whole}**{counted}")
    return lines


def cross(runs: Runs) -> list[list[str]]:
    """Claim 3, crossed: S4-D's accuracy by weights and scaling, its difference to the small CNN (S4-A), and to `unit`."""
    rows = []
    for (weights, scaling), job in CROSS.items():
        compared = runs.pair(job, "s4a")
        if compared is None or len(compared[1]) < LEAST_SEEDS:
            continue
        accuracy = runs.right(job, runs.shared(job, "s4a"), "val").mean()
        says = {"**holds**": "better than A", "**does not hold**": "worse than A", "open": "no difference seen"}[
            verdict(*compared)
        ]
        names = {CAFFE: "the original (caffe)", V1: "torchvision's IMAGENET1K_V1"}
        fits = {CAFFE: "caffe", V1: "imagenet"}[weights] == scaling
        beside = runs.pair(job, CROSS[weights, "unit"]) if scaling != "unit" else None
        rows.append(
            [
                names[weights],
                f"`{scaling}`" + (", which they expect" if fits else ""),
                f"{accuracy:.3f}",
                signed(compared[0]),
                says,
                signed(beside[0]) if beside else "–",
                images_of(runs.of(job)[0]),
            ]
        )
    return rows
