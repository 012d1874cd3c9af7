"""A few seconds of `make fuzz`, from the same numbers each time."""

import logging

import fuzz
import pytest

TIMES = {"images": 300, "tables": 100, "other tables": 60, "command lines": 6, "checkpoints": 30}


@pytest.mark.parametrize("kind", TIMES)
def test_mutated_input_gives_an_answer_or_one_message(kind, monkeypatch):
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    results = {fuzz.run_case(kind, seed) for seed in range(TIMES[kind])}
    assert results <= {"read", "refused"} and "refused" in results
