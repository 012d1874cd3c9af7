"""The sentences about how good a model is, from the files of its run."""

from pathlib import Path

from run_metrics import VAL_METRICS

from faceattr.commands.serving.accuracy_summary import UNKNOWN, accuracy_summary, read_model_card
from faceattr.files import write_json


def run(folder: Path, metrics: dict, split: str = "val") -> Path:
    """The best.ckpt of a run with these figures."""
    write_json(folder / "run.json", {"status": "finished", "best_epoch": 3})
    write_json(folder / f"{split}_metrics.json", metrics)
    return folder / "checkpoints" / "best.ckpt"


def test_accuracy_summary_names_the_share_its_interval_and_the_worst_class(tmp_path):
    start = "Right on 94.5% (93.5–95.3) of 2,396 validation images; worst for female: 92.1% (90.4–93.6) of 1,096."
    assert accuracy_summary(run(tmp_path, VAL_METRICS)).startswith(start)


def test_accuracy_summary_prefers_images_that_chose_nothing(tmp_path):
    run(tmp_path, VAL_METRICS)
    assert "of 500 test images" in accuracy_summary(run(tmp_path, VAL_METRICS | {"n": 500}, "test"))


def test_accuracy_summary_of_an_exported_model_is_that_of_its_card(tmp_path):
    assert accuracy_summary(tmp_path) == UNKNOWN
    sentence = r"Right on 92.9% (88.7–95.6) of 224 test images; worst for a\_b\\c."
    card = f"---\nx: y\n---\n\n# n\n\nA classifier with the classes Right on, a. {sentence}\n\nMore."
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert accuracy_summary(tmp_path).startswith(
        r"Right on 92.9% (88.7–95.6) of 224 test images; worst for a_b\c. The range"
    )


def test_accuracy_summary_takes_no_figures_of_another_checkpoint(tmp_path):
    best = run(tmp_path, VAL_METRICS)
    assert accuracy_summary(best.with_name("last.ckpt")) == UNKNOWN
    assert accuracy_summary(tmp_path / "elsewhere" / "checkpoints" / "best.ckpt") == UNKNOWN


def test_accuracy_summary_of_a_run_that_evaluated_no_image_is_unknown(tmp_path):
    assert accuracy_summary(run(tmp_path, {"n": 0})) == UNKNOWN


def test_read_model_card_is_no_link_and_small(tmp_path):
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (tmp_path / "README.md").symlink_to(tmp_path / "secret")
    assert read_model_card(tmp_path) is None
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").write_text("x" * 1_000_001, encoding="utf-8")
    assert read_model_card(tmp_path) is None
