"""results.json, schema 1, as people's scripts read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from autokd.errors import StorageError
from autokd.storage import Entry, ProxyFidelity, Results, SearchSummary, TeacherResult

# As the design gives it, word for word.
SCHEMA_1 = """
{"schema": 1, "name": "...", "search": {"sampler": "mcts", "finished": 0, "failed": 0, "pruned": 0,
  "reused": 0, "seconds": 0.0}, "teacher": {"val_ap": 0.0, "test_ap": 0.0},
 "entries": [{"name": "searched", "spec": {}, "digest": "...", "seeds": [0],
              "val_ap": [0.0], "test_ap": [0.0], "train_seconds": [0.0]}],
 "proxy_fidelity": {"kendall_tau": 0.0, "pairs": 0}, "winner": "searched"}
"""


def test_results_have_every_key_of_the_schema_in_its_shape(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(SCHEMA_1)
    Results.read(path).write(path)
    written = json.loads(path.read_text())

    def check(expected: object, found: object) -> None:
        if isinstance(expected, dict):
            assert isinstance(found, dict)
            for key, value in expected.items():
                check(value, found[key])
        elif isinstance(expected, list):
            assert isinstance(found, list)
            for value, other in zip(expected, found, strict=True):
                check(value, other)
        else:
            assert found == expected

    check(json.loads(SCHEMA_1), written)


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    results = Results(
        name="bccd",
        search=SearchSummary(sampler="mcts", finished=38, failed=2, reused=3, seconds=60.0, causes={"timeout": 2}),
        teacher=TeacherResult(val_ap=0.4, test_ap=0.38),
        entries=(
            Entry(name="none", seeds=(0, 1), val_ap=(0.37, 0.36), test_ap=(0.3, float("nan"))),
            Entry(
                name="searched",
                spec={"schema": 1, "terms": []},
                digest="ab",
                seeds=(0, 1),
                val_ap=(0.39, 0.4),
                test_ap_per_class={"RBC": (0.5, 0.6)},
            ),
        ),
        proxy_fidelity=ProxyFidelity(kendall_tau=float("nan"), pairs=1),
        winner="searched",
    )
    path = tmp_path / "results.json"
    results.write(path)
    back = Results.read(path)
    assert back == results
    # JSON has no NaN: it is null there, None here.
    assert "NaN" not in path.read_text()
    assert back.entry("none").test_ap == (0.3, None)
    assert back.proxy_fidelity.kendall_tau is None
    assert back.entry("searched").test_ap_per_class["RBC"] == (0.5, 0.6)
    with pytest.raises(KeyError, match="none, searched"):
        back.entry("pkd")
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"], "nothing temporary is left"


def test_a_column_has_one_number_for_each_seed() -> None:
    with pytest.raises(ValidationError, match="2 numbers for 1 seeds"):
        Entry(name="none", seeds=(0,), val_ap=(0.1, 0.2))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": 2}', "schema 2; this version of AutoKD reads schema 1"),
        ("[]", "schema None"),
        ("{", "not a results file"),
        ('{"schema": 1, "search": {"sampler": "mcts"}, "teacher": {"val_ap": "much"}}', "teacher.val_ap"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(StorageError, match=said):
        Results.read(path)


def test_absent_results_say_that_the_run_has_not_ended(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="--resume"):
        Results.read(tmp_path / "results.json")
