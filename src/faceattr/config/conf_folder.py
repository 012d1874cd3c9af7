"""conf/: where it lies, its groups and their options, and the schemas that Hydra composes it with."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from faceattr.config.schema import SCHEMAS, SHARED

QUIRKS = {
    "as_published": "The published studies with their bugs and odd choices",
    "corrected": "The published studies without them, as far as their data allow; for the studies' presets",
}
"""Options of the group `quirks`; what a study's presets correct lies in conf/quirks/<study>/corrected.yaml."""


def config_folder() -> Path:
    """conf/: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent.parent / "conf"


def groups(*folders: Path) -> dict[str, dict[str, str]]:
    """Group → option → what its file says of it in the comment at its top; of conf/, or of these folders together."""
    files = [file for folder in folders or [config_folder()] for file in folder.glob("*/[!_]*.yaml")]
    options: dict[str, dict[str, str]] = {}
    for file in sorted(files, key=lambda file: (file.parent.name, file.stem)):
        options.setdefault(file.parent.name, {})[file.stem] = _summary(file)
    return options | {"quirks": QUIRKS}


def _summary(file: Path) -> str:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("# ") else ""


def register_schemas() -> None:
    """Gives Hydra the schemas, `_base` of each open group (its shared keys), and the options of `quirks`. Needed before a config is
    composed."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)
    for group, shared in SHARED.items():
        store.store(group=group, name="_base", node=asdict(shared()))  # untyped: an option adds keys of its own
    for variant in QUIRKS:
        store.store(group="quirks", name=variant, node={}, package="_global_")


def compose_conf(name: str, overrides: Sequence[str] = (), *, with_hydra: bool = False) -> DictConfig:
    """conf/<name>.yaml with `overrides`, not checked; `with_hydra`: with Hydra's own part."""
    register_schemas()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose(name, list(overrides), return_hydra_config=with_hydra)
