"""A logger that fails while a run trains costs its own record, and nothing of the run."""

import logging

import pytest
import pytorch_lightning as pl
from programs import TINY, inside
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import Logger

from faceattr.training.failing_loggers import KEY, attempt, go_on_without


class ServerIsGone(Logger):
    """Its server answers once."""

    name, version = "gone", ""

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.fails, self.calls = fails, []

    def log_metrics(self, metrics, step=None):
        self._send("log_metrics")

    def log_hyperparams(self, params, *args, **kwargs):
        self._send("log_hyperparams")

    def save(self):
        self._send("save")

    def finalize(self, status):
        self._send("finalize")

    def after_save_checkpoint(self, checkpoint_callback):
        self._send("after_save_checkpoint")

    def _send(self, call):
        self.calls.append(call)
        if call == self.fails:
            raise ConnectionError("no answer\nfrom the server")


class Model(BoringModel):
    def on_train_epoch_end(self):
        self.log("loss", 0.5)


@pytest.mark.parametrize("fails", ["log_metrics", "save", "finalize", "after_save_checkpoint"])
def test_training_goes_on_without_a_logger_that_fails(tmp_path, caplog, fails):
    logger, fields = ServerIsGone(fails), {}
    go_on_without([logger], fields)
    few = {
        "limit_train_batches": 1,
        "limit_val_batches": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(
        default_root_dir=tmp_path, logger=logger, accelerator="cpu", max_epochs=2, log_every_n_steps=1, **few
    )
    with caplog.at_level(logging.WARNING, "faceattr"):
        trainer.fit(Model())
    assert trainer.current_epoch == 2
    assert fields == {KEY: {"ServerIsGone": "ConnectionError: no answer"}}
    assert (
        caplog.text.count("ServerIsGone has failed, and gets nothing more of this run: ConnectionError: no answer") == 1
    )
    assert logger.calls[-1] == fails and logger.calls.count(fails) == 1, "it was asked again"


def test_attempt_does_not_hide_a_signal():
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(ServerIsGone(""), {}, stopped)


def test_a_logger_that_cannot_begin_is_refused_before_training(tmp_path):
    (tmp_path / "file").touch()
    given = ("logger=tensorboard", f"logger.save_dir={tmp_path / 'file' / 'x'}", "hydra.run.dir=run")
    ended = inside("train", *TINY, "trainer.max_epochs=1", *given, cwd=tmp_path)
    assert ended.code == 1 and "Error: logger (pytorch_lightning.loggers.TensorBoardLogger): " in ended.err, ended.err
    assert not (tmp_path / "run").exists()
