"""Our use of Hydra: the config is composed once, and is the one that Hydra composes."""

import contextlib
import copy
import shutil
from typing import Any

import pytest
from hydra import version as hydra_version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import _run_hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from programs import inside

from faceattr.commands.hydra_app import hydra_parser, own_hydra_state, run_hydra
from faceattr.config.conf_folder import config_folder


@pytest.mark.parametrize(("more", "jobs"), [([], 1), (["seed=0,1", "hydra.mode=MULTIRUN"], 2)], ids=["run", "sweep"])
def test_run_hydra_gives_the_configs_of_hydra(tmp_path, monkeypatch, more, jobs):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    folders = ["hydra.run.dir=run", "hydra.sweep.dir=sweep", "hydra/hydra_logging=none", "hydra/job_logging=none"]
    parser, seen = hydra_parser(), list[tuple[DictConfig, dict[str, Any]]]()

    def task(cfg: DictConfig) -> None:
        seen.append((cfg, copy.deepcopy(OmegaConf.to_container(HydraConfig.instance().cfg))))

    hydra_version.setbase("1.3")
    for run in (run_hydra, lambda *given: _run_hydra(*given[:-1], str(config_folder()), given[-1])):
        with own_hydra_state(), contextlib.suppress(SystemExit):  # the leaderboard's: the jobs leave no results
            run(parser.parse_args([*folders, *more]), parser, task, "train")
        shutil.rmtree("sweep", ignore_errors=True)
    assert len(seen) == 2 * jobs and seen[:jobs] == seen[jobs:]


def test_a_command_composes_its_config_once(tmp_path, monkeypatch):
    compose, composed = ConfigLoaderImpl.load_configuration, []

    def counted(*arguments: Any, **options: Any) -> DictConfig:
        composed.append(1)
        return compose(*arguments, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    assert inside("train", "data=csv", cwd=tmp_path).code == 1
    assert len(composed) == 1
