"""Gives Hydra the schemas, so that it composes conf/ with their types; whatever reads a config imports this module."""

from dataclasses import asdict

from hydra.core.config_store import ConfigStore

from faceattr.config.conf_folder import QUIRKS
from faceattr.config.schema import SCHEMAS, SHARED


def register() -> None:
    """Stores the schemas, `_base` of each open group (its shared keys), and the options of `quirks`."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)
    for group, shared in SHARED.items():
        store.store(group=group, name="_base", node=asdict(shared()))  # untyped: an option adds keys of its own
    for variant in QUIRKS:
        store.store(group="quirks", name=variant, node={}, package="_global_")


register()
