"""A real MLflow store on disk: config, metrics, report and checkpoint of a run are in it."""

from pathlib import Path

import pytest
from programs import TINY, inside, quick


@pytest.fixture
def mlflow():
    """Imported late: it takes a second."""
    pytest.importorskip("sqlalchemy")
    return pytest.importorskip("mlflow")


@pytest.mark.slow
def test_mlflow_holds_config_metrics_report_and_checkpoint(mlflow, tmp_path, monkeypatch):
    given = (*TINY, "trainer.max_epochs=2", "evaluate.report=full", "logger=mlflow", "hydra.run.dir=run")
    ended = quick("train", *given, cwd=tmp_path)
    assert ended.code == 0, ended.err
    monkeypatch.chdir(tmp_path)
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("faceattr")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "sample_cnn_full"
    assert run.data.params["model/image_size"] == "[32, 32]" and run.data.params["seed"] == "0"
    assert {"val_accuracy", "test_accuracy", "test_accuracy_low", "train_loss"} <= set(run.data.metrics)
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val_loss")]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"best.ckpt", "report.html", "run.json"}
    stored = Path(client.download_artifacts(run.info.run_id, "best.ckpt"))
    assert stored.read_bytes() == (tmp_path / "run" / "checkpoints" / "best.ckpt").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
def test_mlflow_store_that_cannot_be_opened_is_one_line(tmp_path):
    given = (*TINY, "logger=mlflow", "logger.tracking_uri=sqlite:////dev/null/mlflow.db", "hydra.run.dir=run")
    ended = inside("train", *given, cwd=tmp_path)
    assert ended.code == 1 and ended.err.startswith("Error: logger (pytorch_lightning.loggers.MLFlowLogger): ")
    assert "Traceback" not in ended.err and not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
