"""Tests the conclusions of the studies on our runs: two jobs are compared on the same images, seed by seed, and a rule decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jobs import CAFFE, V1, WEIGHTS_AND_SCALING

from faceattr.metrics.intervals import PairedDifference, Z, over_runs, paired_difference

Record = dict[str, Any]
MIN_SEEDS = 3
MARGIN = 0.02
"""Of accuracy: a smaller advantage counts as none."""


@dataclass(frozen=True)
class Claim:
    """The study says that job `better` is more accurate than each of `others`; with `no_better`, that it is not."""

    number: str
    text: str
    better: str
    others: tuple[str, ...]
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
    """The runs of one budget, by job and by seed."""

    def __init__(self, runs: Sequence[Record], budget: str) -> None:
        self.by_job: dict[str, dict[int, Record]] = {}
        for run in runs:
            if run["budget"] == budget:
                self.by_job.setdefault(run["job"], {})[run["seed"]] = run

    def of_job(self, job: str) -> list[Record]:
        """In the order of the seeds."""
        return [run for _, run in sorted(self.by_job.get(job, {}).items())]

    def shared_seeds(self, *jobs: str) -> list[int]:
        """The seeds that all these jobs were run with."""
        return sorted(set.intersection(*(set(self.by_job.get(job, {})) for job in jobs)))

    def correct(self, job: str, seeds: Sequence[int], split: str) -> np.ndarray:
        """Which images were classified correctly: booleans [seeds, images]."""
        runs = [self.by_job[job][seed] for seed in seeds]
        bits = [np.unpackbits(np.frombuffer(bytes.fromhex(run["correct"][split]), np.uint8)) for run in runs]
        return np.stack([b[: run["metrics"][split]["n"]] for b, run in zip(bits, runs, strict=True)]).astype(bool)

    def compare(self, job: str, other: str, split: str = "val") -> tuple[PairedDifference, list[float]] | None:
        """The comparison over all shared seeds, and the difference of each seed; None without a shared seed."""
        seeds = self.shared_seeds(job, other)
        if not seeds:
            return None
        first, second = (self.correct(name, seeds, split) for name in (job, other))
        return paired_difference(first, second), (first.mean(1) - second.mean(1)).tolist()


def verdict(pair: PairedDifference, each: Sequence[float], no_better: bool = False) -> str:
    """A claim is decided where the interval excludes zero and every seed has the same sign; else it is open.

    `no_better` holds where the interval ends below MARGIN: to see no difference is not enough. Fewer than MIN_SEEDS seeds
    give no verdict.
    """
    if len(each) < MIN_SEEDS:
        return f"none: {len(each)} seed{'s' * (len(each) > 1)}"
    if pair.low > 0 and min(each) > 0:
        return "**does not hold**" if no_better else "**holds**"
    if no_better:
        return "**holds**" if pair.high < MARGIN else "open"
    return "**does not hold**" if pair.high < 0 and max(each) < 0 else "open"


def generalization_gap(runs: Runs, job: str, other: str) -> tuple[list[str], str] | None:
    """Claim 5: training accuracy minus validation accuracy, of `job` and of `other`; the training images are not augmented."""
    seeds = runs.shared_seeds(job, other)
    if len(seeds) < MIN_SEEDS:
        return None
    by_split = {
        split: [runs.correct(name, seeds, split).astype(float) for name in (other, job)] for split in ("train", "val")
    }
    gaps = [train.mean(1) - val.mean(1) for train, val in zip(*by_split.values(), strict=True)]
    each = gaps[0] - gaps[1]
    images = sum(float((first - second).mean(0).var(ddof=1)) / first.shape[1] for first, second in by_split.values())
    half = float(np.hypot(Z * images**0.5, over_runs(each)))
    pair = PairedDifference(float(each.mean()), float(each.mean()) - half, float(each.mean()) + half, 0, 0, 1.0)
    cells = [f"{gaps[1].mean():.3f}", f"{gaps[0].mean():.3f}", signed(pair), ", ".join(f"{d:+.3f}" for d in each)]
    return cells, verdict(pair, each.tolist())


def speed_ratio(runs: Runs, job: str, other: str) -> tuple[list[str], str] | None:
    """Claim 7: images per second of `job` divided by those of `other`, seed by seed."""
    seeds = runs.shared_seeds(job, other)
    if len(seeds) < MIN_SEEDS:
        return None
    rates = {name: [runs.by_job[name][seed]["rate"] for seed in seeds] for name in (job, other)}
    ratios = [a / b for a, b in zip(rates[job], rates[other], strict=True)]
    decided = "**holds**" if min(ratios) > 0.95 else "**does not hold**" if max(ratios) < 0.95 else "open"
    cells = [f"{np.median(rates[name]):,.0f} images/s" for name in (job, other)]
    ratio = f"{np.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"
    return [*cells, ratio, ", ".join(f"{r:.2f}" for r in ratios)], decided


OTHER_CLAIMS = (
    ("5", "augmentation narrows the gap between training and validation: S4-C, A", "s4c", "s4a", generalization_gap),
    (
        *("7", "two more conv layers do not slow training: S3"),
        *("s3_celeba575_cnn7", "s3_celeba575_three_conv", speed_ratio),
    ),
)


def signed(pair: PairedDifference) -> str:
    return f"{pair.difference:+.3f} ({pair.low:+.3f} to {pair.high:+.3f})"


def claim_rows(runs: Runs) -> list[list[str]]:
    """Rows of: claim, its text, the two jobs, data, their figures, difference, that of each seed, McNemar, verdict."""
    rows = []
    for claim in CLAIMS:
        for other in claim.others:
            compared = runs.compare(claim.better, other)
            if compared is None:
                continue
            pair, each = compared
            seeds = runs.shared_seeds(claim.better, other)
            cells = [
                *(f"{runs.correct(job, seeds, 'val').mean():.3f}" for job in (claim.better, other)),
                signed(pair),
                ", ".join(f"{d:+.3f}" for d in each),
                f"{pair.wins:,} : {pair.losses:,}, {pair.p_text}",
                verdict(pair, each, claim.no_better),
            ]
            rows.append([claim.number, claim.text, *jobs_and_data(runs, claim.better, other), *cells])
    for number, text, job, other, compare in OTHER_CLAIMS:
        if result := compare(runs, job, other):
            cells, decided = result
            rows.append([number, text, *jobs_and_data(runs, job, other), *cells, "–", decided])
    return sorted(rows, key=lambda row: row[0])


def jobs_and_data(runs: Runs, job: str, other: str) -> list[str]:
    """The two jobs that are compared, and their images."""
    return [f"`{job}` – `{other}`", data_name(runs.of_job(job)[0])]


def data_name(run: Record) -> str:
    """The name of the stand-in, or `own`: the images of the study itself."""
    return "own" if run["data"] == "own" else f"`{run['data']}`"


def summary(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line per claim. It holds if all of its comparisons hold, does not hold if one does not, and else is open."""
    lines = []
    rows = [row for row in rows if not row[-1].startswith("none")]
    for number in dict.fromkeys(row[0] for row in rows):
        of_claim = [row for row in rows if row[0] == number]
        verdicts = [row[-1].strip("*") for row in of_claim]
        held = sum(v.startswith("holds") for v in verdicts)
        whole = "does not hold" if "does not hold" in verdicts else "holds" if held == len(verdicts) else "open"
        counted = f" ({held} of {len(verdicts)} comparisons hold)" if len(verdicts) > 1 else ""
        lines.append(f"{number}. {'; '.join(dict.fromkeys(row[1] for row in of_claim))}: **{whole}**{counted}")
    return lines


def weights_and_scaling_rows(runs: Runs) -> list[list[str]]:
    """Claim 3 for each pair of weights and scaling: the accuracy of S4-D, its difference to the small CNN (S4-A) and to `unit`."""
    rows = []
    for (weights, scaling), job in WEIGHTS_AND_SCALING.items():
        compared = runs.compare(job, "s4a")
        if compared is None or len(compared[1]) < MIN_SEEDS:
            continue
        accuracy = runs.correct(job, runs.shared_seeds(job, "s4a"), "val").mean()
        words = {"**holds**": "better than A", "**does not hold**": "worse than A", "open": "no difference seen"}
        names = {CAFFE: "the original (caffe)", V1: "torchvision's IMAGENET1K_V1"}
        expected = {CAFFE: "caffe", V1: "imagenet"}[weights] == scaling
        to_unit = runs.compare(job, WEIGHTS_AND_SCALING[weights, "unit"]) if scaling != "unit" else None
        rows.append(
            [
                names[weights],
                f"`{scaling}`" + (", which they expect" if expected else ""),
                f"{accuracy:.3f}",
                signed(compared[0]),
                words[verdict(*compared)],
                signed(to_unit[0]) if to_unit else "–",
                data_name(runs.of_job(job)[0]),
            ]
        )
    return rows
