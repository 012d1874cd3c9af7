"""An exported folder, made once for all files of tests here."""

from pathlib import Path

import pytest
from exports import write_export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and its export, to be read only."""
    return write_export(tmp_path_factory.mktemp("exported"))
