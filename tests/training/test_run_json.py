"""run.json says how a run ended."""

import pytest

from faceattr.files import read_json
from faceattr.training.run_json import RunRecord


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("refused", [False, True])
def test_end_of_a_run_is_refused_only_where_it_never_began(tmp_path, begun, refused):
    record = RunRecord(tmp_path)
    if begun:
        record.begin({})
    record.end("failed", "Why", always=True, refused=refused)
    stored = read_json(tmp_path / RunRecord.FILE)
    assert (stored["status"], stored["error"]) == ("failed", "Why")
    assert stored.get("refused", False) == (refused and not begun)
