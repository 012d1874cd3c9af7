"""Two models are compared where they tell apart the same classes, in whatever order."""

import re

import pytest
from checkpoints import untrained
from omegaconf import OmegaConf

from faceattr.commands.compare_models import load_rival
from faceattr.errors import FaceattrError
from faceattr.training import checkpoint_format


def test_load_rival_refuses_a_model_of_other_classes(tmp_path):
    ckpt, rival = tmp_path / "best.ckpt", tmp_path / "rival.ckpt"
    model, description = checkpoint_format.load(untrained(ckpt))
    cfg = OmegaConf.create({"ckpt": str(ckpt), "compare": str(rival)})
    for given, classes in (({"classes": ("young", "old")}, "young, old"), ({"multilabel": True}, "female, male")):
        untrained(rival, **given)
        message = f"compare={rival} tells apart {classes}; ckpt={ckpt} female, male."
        with pytest.raises(FaceattrError, match=f"^{re.escape(message)}$"):
            load_rival(cfg, model, description)
    untrained(rival, classes=("male", "female"))
    assert load_rival(cfg, model, description)[0].task.classes == ("male", "female")
