"""The model card of an export: README.md in the form of the Hugging Face Hub, of the run's own figures and the export's proof."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from faceattr.data.decode import BARS
from faceattr.message_text import MOST_LISTED, PERCEIVED, counted
from faceattr.metrics.registry import METRICS
from faceattr.report import markdown, result_sentences
from faceattr.report.accuracy_sentence import EVALUATED, SPLITS, accuracy_sentence
from faceattr.report.private_paths import last_part
from faceattr.report.render_html import interval, number

PATH = re.compile(r"(/|[A-Za-z]:[/\\]).*|\S*[/\\]\S*")
"""Where the first weights lie, not words about them."""
MOST_SLICES, MOST_CLASSES = 10, MOST_LISTED


@dataclass(frozen=True)
class RunFigures:
    """What a run's files say: `config` and `weights` of the checkpoint, `record` (run.json), `metrics` (<split>_metrics.json) and
    `slices` (slices_<split>.csv) by split. Empty where the run did not evaluate this checkpoint."""

    config: Mapping[str, Any]
    weights: str
    record: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    slices: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def model_card(config: Mapping[str, Any], figures: RunFigures, proof: Mapping[str, Any]) -> str:
    """The card's text. `config` is ours in config.json, `proof` is validation.json."""
    from huggingface_hub import ModelCard

    parts = [
        f"# {_text(config['name'])}",
        _summary(config, figures, proof),
        f"**{PERCEIVED}**",
        "## How to use it",
        _usage(config),
        "## What it is for",
        _purpose(config),
        "## Data",
        _data(config, figures),
        "## Figures",
        *(_before_reduction(config) if figures.metrics else []),
        *(_split(split, figures, config) for split in EVALUATED if split in figures.metrics),
        *(
            []
            if figures.metrics
            else ["There are no figures of a run for this checkpoint, only the proof's figures, below."]
        ),
        "## Leakage: are images of the evaluation in training, too?",
        _leakage(figures),
        "## Calibration: do its probabilities mean what they say?",
        _calibration(config, figures),
        "## Proof: does the export answer as the checkpoint does?",
        _proof(proof),
    ]
    return str(
        ModelCard(
            f"---\n{_front_matter(config, figures)}\n---\n\n" + "\n\n".join(part.strip() for part in parts) + "\n"
        )
    )


def _front_matter(config: Mapping[str, Any], figures: RunFigures) -> str:
    """YAML, with the accuracy of each split as the Hub's `model-index`."""
    from huggingface_hub import EvalResult, ModelCardData

    name = _data_name(figures.config).partition(" (")[0]
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=name.replace(" ", "_"),
            dataset_name=name,
            dataset_split=split,
            metric_type="accuracy",
            metric_value=round(float(metrics["accuracy"]), 4),
        )
        for split, metrics in figures.metrics.items()
    ]
    data = ModelCardData(
        license="unknown",
        library_name="faceattr",
        pipeline_tag="image-classification",
        tags=["image-classification", "face-attributes", "faceattr", "onnx"],
        **({"model_name": str(config["name"]), "eval_results": results} if results else {}),
    )
    text: str = data.to_yaml()
    return text.strip()


def _text(value: Any) -> str:
    """A value of a file as it can stand in Markdown: on one line, no table cell, no markup."""
    return _escaped(" ".join(str(value).split())[:200])


def _escaped(line: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#&~" else sign for sign in line)


def _data_name(config: Mapping[str, Any]) -> str:
    """The source and the last part of its folder: no path of a machine."""
    name = result_sentences.describe_data(config["data"])
    return "sample (faces drawn by code, no photographs)" if name.split()[0] == "sample" else name


def _classes(config: Mapping[str, Any]) -> str:
    names = [_text(name) for name in config["classes"]]
    return ", ".join(names[:MOST_CLASSES]) + (
        f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
    )


def _summary(config: Mapping[str, Any], figures: RunFigures, proof: Mapping[str, Any]) -> str:
    """What it is and how good, in two sentences."""
    kind = "the attributes" if config["kind"] == "multilabel" else "the classes"
    text = f"A classifier of face images with {kind} {_classes(config)}."
    split = next((split for split in EVALUATED if split in figures.metrics), None)
    if split is None:
        low, high = (proof[f"accuracy_onnx_{side}"] for side in ("low", "high"))
        return f"{text} Right on {proof['accuracy_onnx']:.1%} ({low:.1%}–{high:.1%}) of {_text(proof['splits'])}."
    sentence = _escaped(accuracy_sentence(figures.metrics[split], split, figures.slices.get(split)))
    return " ".join([text, sentence, *_before_reduction(config)])


def _compared(figures: RunFigures, split: str) -> pd.DataFrame | None:
    """The slices with a gap, the worst first."""
    slices = figures.slices.get(split)
    if slices is None or slices["gap"].isna().all():
        return None
    return slices[slices["gap"].notna()].sort_values("gap", kind="stable")


def _usage(config: Mapping[str, Any]) -> str:
    spec, faces = config["input"], config["faces"]["mode"]
    size, method = f"({spec['width']}, {spec['height']})", f"Image.Resampling.{spec['interpolation'].upper()}"
    resized = {
        "stretch": f"image.resize({size}, {method})",
        "crop": f"ImageOps.fit(image, {size}, {method})",
        "letterbox": f"ImageOps.pad(image, {size}, {method}, color={BARS})",
    }[spec["resize"] if faces == "none" else "stretch"]
    photo = "a photo: its faces are found and cropped as in training" if faces != "none" else "a crop of a face"
    return f"""```python
import faceattr  # with onnxruntime; torch is not needed

model = faceattr.load("DIR")  # this folder
model.predict(["photo.jpg"])  # {photo}; a table with a row for each answer
model.predict_proba("photo.jpg")
```

Without faceattr, from an image that is cropped already ({spec["height"]} rows, {spec["width"]} columns):

```python
import numpy, onnxruntime
from PIL import Image, ImageOps

image = ImageOps.exif_transpose(Image.open("crop.jpg")).convert("RGB")
pixels = numpy.asarray({resized})
onnxruntime.InferenceSession("model.onnx").run(None, {{"images": pixels[None]}})[0]  # a row of probabilities
```"""


def _purpose(config: Mapping[str, Any]) -> str:
    crops = {
        "none": "crops of faces, as its training images are",
        "square": "photos, of which the box of each detected face is cropped",
        "align": "photos, in which each detected face is turned upright and cropped",
    }[config["faces"]["mode"]]
    return f"""- For research, and for sorting and describing collections of pictures, on {crops}.
- Not for decisions about a person, nor for finding out who somebody is, or what somebody is beyond the picture.
- Not for images unlike its training images, until it has been evaluated on such images: `python evaluate.py ckpt=… data=…`."""


def _data(config: Mapping[str, Any], figures: RunFigures) -> str:
    record, run_config = figures.record, figures.config
    images = ", ".join(f"{count:,} {split}" for split, count in (record.get("images") or {}).items())
    parameters = (record.get("parameters") or {}).get("total")
    start = str(figures.weights)
    rows = [
        ("Data", _text(_data_name(run_config)) + (f": {images} images" if images else "")),
        ("Fingerprint of the data and its split", f"`{_text(config['fingerprint'])}`"),
        ("Network", f"{_network(run_config)}" + (f", {parameters:,} parameters" if parameters else "")),
        ("It started from", _text(last_part(start) if PATH.fullmatch(start) else start)),
        ("Input", f"{config['input']['height']}×{config['input']['width']} pixels, RGB"),
        ("Faces", _faces(config["faces"])),
        ("Seed", _text(run_config.get("seed"))),
        ("Written by", f"faceattr {config['version']}"),
    ]
    rows += [("Quirk of a published study, kept", _text(quirk)) for quirk in record.get("quirks") or ()]
    return markdown.table(("", ""), rows)


def _network(config: Mapping[str, Any]) -> str:
    """timm's name, or the function that builds it, with the channels of its blocks of convolutions where it has such."""
    model = config["model"]
    blocks = f", blocks {list(map(list, model['blocks']))}" if model.get("blocks") else ""
    return _text(f"{model.get('name') or str(model.get('_target_')).rpartition('.')[2]}{blocks}")


def _faces(recipe: Mapping[str, Any]) -> str:
    if recipe["mode"] == "none":
        return "images are taken whole"
    return f"{recipe['mode']}, margin {recipe['margin']:g}, least score {recipe['min_score']:g}; YuNet finds them"


def _before_reduction(config: Mapping[str, Any]) -> list[str]:
    """A sentence for a model whose figures are those of its checkpoint; none for one in float32."""
    if config["precision"] == "float32":
        return []
    return [
        f"These are the figures of the checkpoint, before it was reduced to {config['precision']}; the card's proof says what "
        "that changed."
    ]


def _split(split: str, figures: RunFigures, config: Mapping[str, Any]) -> str:
    """A table of every metric with its interval, and one of the slices."""
    metrics = figures.metrics[split]
    keys = [(name, metric.label) for name, metric in METRICS.items()]
    if config["kind"] != "multilabel":
        keys += [(f"recall_{name}", f"Recall of {_text(name)}") for name in config["classes"][:MOST_CLASSES]]
    rows = [
        (label, number(metrics[key]), interval(metrics.get(f"{key}_low"), metrics.get(f"{key}_high")))
        for key, label in keys
        if metrics.get(key) is not None
    ]
    positive = f"; the positive class is {_text(metrics['positive_class'])}" if metrics.get("positive_class") else ""
    title = f"{SPLITS[split].capitalize()}: {metrics['n']:,}{positive}. {_caveat(split)}"
    return f"{title}\n\n{markdown.table(('metric', 'value', '95% interval'), rows, numbers=True)}\n\n{_slice_table(figures, split)}"


def _caveat(split: str) -> str:
    return (
        "Neither training nor model selection used them."
        if split == "test"
        else "Training did not use them; the epoch may have been selected on them, so the figures may be slightly too good."
    )


def _slice_table(figures: RunFigures, split: str) -> str:
    compared = _compared(figures, split)
    if compared is None:
        return "For whom it is worse was not measured, or no group has enough images."
    rows = [
        (
            f"{_text(row['column'])}: {_text(row['value'])}",
            f"{row['n']:,}",
            f"{number(row['accuracy'])} ({interval(row['accuracy_low'], row['accuracy_high'])})",
            f"{number(row['gap'], '+.3f')} ({interval(row['gap_low'], row['gap_high'], '+.3f')})",
            number(row["p"], ".2g"),
        )
        for row in compared.head(MOST_SLICES).to_dict("records")
    ]
    head = ("images", "n", "accuracy", "gap to the others", "p (Holm)")
    more = (
        f"The worst {len(rows)} of {len(compared)} groups of these images"
        if len(compared) > len(rows)
        else "Groups of these images"
    )
    return f"{more}, by the gap in accuracy:\n\n{markdown.table(head, rows, numbers=True)}"


def _leakage(figures: RunFigures) -> str:
    leakage = figures.record.get("leakage") or {}
    if "pairs_across" not in leakage:
        return "Not known."
    pairs = {split: leakage.get(f"train_{split}") or 0 for split in ("val", "test")}
    text = "; ".join(
        f"{counted(count, 'pair of copies links', 'pairs of copies link')} training and {SPLITS[split]}"
        for split, count in pairs.items()
        if count
    )
    text = text[:1].upper() + text[1:] if text else "No copies of training images were found among them"
    if leakage.get("left_out"):
        text += (
            f"; {counted(leakage['left_out'], 'training image was', 'training images were')} left out because of copies"
        )
    people = leakage.get("identities_in_two_splits")
    persons = (
        "whether a person is in two splits is not known"
        if people is None
        else f"{counted(people, 'person is', 'people are')} in two splits"
    )
    return f"{text}; {persons}."


def _calibration(config: Mapping[str, Any], figures: RunFigures) -> str:
    """Of the split that is shown first, where its figures are of the temperature that is exported."""
    split = next((split for split in EVALUATED if split in figures.metrics), None)
    temperature = config["temperature"]
    fitted = (
        f"A temperature of {temperature:.3f}, fitted on validation images, is inside."
        if temperature != 1
        else "No temperature was fitted."
    )
    if split is None or figures.metrics[split].get("ece") is None:
        return fitted
    metrics = figures.metrics[split]
    if metrics.get("temperature", 1.0) != temperature:
        return f"{fitted} It was fitted after the evaluation: the figures above hold for the classes, not the probabilities."
    before = metrics.get("ece_uncalibrated")
    was = f" ({number(before)} before)" if before is not None else ""
    return f"{fitted} Calibration error on {SPLITS[split]}: {number(metrics['ece'])}{was}."


def _proof(proof: Mapping[str, Any]) -> str:
    rows = [
        ("Images", _text(proof["splits"])),
        ("Largest difference of a probability", f"{proof['largest_difference']:.2g}"),
        ("Same answer", f"{proof['same_answers']:,} of {proof['images']:,}"),
        *(
            (f"Accuracy, {name}", _accuracy(proof, key))
            for name, key in (("checkpoint", "checkpoint"), ("export", "onnx"))
        ),
    ]
    sizes, rates = proof["onnx_bytes"], proof["images_per_second_on_one_core"]
    rows += [
        (f"model.onnx in {name}", f"{size / 1e6:.1f} MB, {rates[name]:g} images/s on one core")
        for name, size in sizes.items()
    ]
    largest = max(proof["largest_difference_by_batch_size"].values())
    text = (
        f"ONNX Runtime {proof['versions']['onnxruntime']} beside torch {proof['versions']['torch']}, in float32 on the CPU. Before "
        f"any reduction the largest difference with batches of 1, 2 and 37 was {largest:.2g}; {proof['tolerance']:g} was allowed. "
        "validation.json has more."
    )
    if change := proof.get("accuracy_change"):
        sides = interval(change["low"], change["high"], "+.4f")
        text += f" Reduced to {proof['precision']}, the accuracy changed by {number(change['difference'], '+.4f')} (95% {sides})."
    return f"{markdown.table(('', ''), rows)}\n\n{text}"


def _accuracy(proof: Mapping[str, Any], key: str) -> str:
    low, high = (proof[f"accuracy_{key}_{side}"] for side in ("low", "high"))
    return f"{number(proof[f'accuracy_{key}'])} ({interval(low, high)})"
