"""The folder of a run: started, locked, resumed, refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from autokd.config import ResolvedConfig, RunConfig, complete_recipes, config_digest, config_yaml
from autokd.errors import StorageError
from autokd.storage import RunDirectory


def config(**changes: object) -> ResolvedConfig:
    data = {"data": {"format": "shapes"}, "teacher": {}, "student": {"fpn_channels": 32}}
    return complete_recipes(RunConfig.model_validate(data | changes))


def test_a_new_folder_holds_the_resolved_configuration(tmp_path: Path) -> None:
    with RunDirectory.start(tmp_path / "runs" / "one", config(name="demo", search={"trials": 40})) as run:
        assert not run.resumed
        assert run.logs_path.is_dir()
        assert len(run.owner) == 32
    again = RunDirectory.existing(tmp_path / "runs" / "one")
    data = again.read_config()
    assert data["student"]["fpn_channels"] == 32
    assert data["search"]["trials"] == 40, "defaults are written out"
    assert config_yaml(complete_recipes(RunConfig.model_validate(data))) == config_yaml(
        config(name="demo", search={"trials": 40})
    )


def test_a_run_is_resumed_with_its_owner_and_may_get_more_trials(tmp_path: Path) -> None:
    with RunDirectory.start(tmp_path, config(search={"trials": 40})) as run:
        owner = run.owner
    more = config(search={"trials": 80}, runtime={"workers": 7})
    with RunDirectory.start(tmp_path, more, resume=True) as run:
        assert run.resumed
        assert run.owner == owner
        assert run.read_config()["search"]["trials"] == 80


def test_a_run_is_not_started_twice_nor_resumed_where_there_is_none(tmp_path: Path) -> None:
    RunDirectory.start(tmp_path / "one", config()).close()
    with pytest.raises(StorageError, match="--resume"):
        RunDirectory.start(tmp_path / "one", config())
    with pytest.raises(StorageError, match="no run to resume"):
        RunDirectory.start(tmp_path / "none", config(), resume=True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(StorageError, match="not the directory of a run"):
        RunDirectory.existing(tmp_path / "none")


def test_another_configuration_is_refused_by_naming_what_differs(tmp_path: Path) -> None:
    RunDirectory.start(tmp_path, config()).close()
    with pytest.raises(StorageError, match=r"student\.fpn_channels: 32 there, 64 here"):
        RunDirectory.start(tmp_path, config(student={"fpn_channels": 64}), resume=True)
    # A refusal leaves no lock behind.
    RunDirectory.start(tmp_path, config(), resume=True).close()


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StorageError, match=r"thesis\.tex"):
        RunDirectory.start(tmp_path, config())
    with pytest.raises(StorageError, match="cannot be written"):
        RunDirectory.start(tmp_path / "thesis.tex" / "run", config())


def test_a_second_driver_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    holder = textwrap.dedent(
        """
        import sys
        from autokd.config import RunConfig, complete_recipes
        from autokd.storage import RunDirectory
        run = RunDirectory.start(sys.argv[1], complete_recipes(RunConfig.model_validate(
            {"data": {"format": "shapes"}, "teacher": {}, "student": {"fpn_channels": 32}})))
        print("held", flush=True)
        sys.stdin.readline()
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(StorageError, match=f"another process .*:{process.pid}"):
        RunDirectory.start(tmp_path, config(), resume=True)
    # A killed driver holds nothing.
    process.kill()
    process.communicate()
    RunDirectory.start(tmp_path, config(), resume=True).close()


def test_the_digest_ignores_what_does_not_change_the_trials() -> None:
    first = config(search={"trials": 40})
    same = [first, config(search={"trials": 40}, runtime={"workers": 5}), config(search={"trials": 7})]
    assert len({config_digest(each) for each in same}) == 1
    assert config_digest(config(search={"trials": 40, "seed": 1})) != config_digest(first)
    assert config_digest(config()) != config_digest(first), "a search with a budget is another"


def test_a_start_that_was_killed_at_any_instant_can_be_started_or_resumed(tmp_path: Path) -> None:
    states: list[dict[str, str]] = [
        {".lock": ""},
        {".lock": "", ".owner": "0123"},
        {".lock": "", ".owner": "0123", ".config.yaml.aaaaaa-1-0123abcd.part": "half"},
        {".lock": "", ".owner": "0123", "logs/": ""},
    ]
    for number, files in enumerate(states):
        for resume in (False, True)[: 1 + (".owner" in files)]:
            folder = tmp_path / f"{number}{resume}"
            folder.mkdir()
            for name, text in files.items():
                (folder / name).mkdir() if name.endswith("/") else (folder / name).write_text(text)
            with RunDirectory.start(folder, config(), resume=resume) as run:
                assert run.owner == files.get(".owner", run.owner)
            assert not list(folder.glob("*.part"))
            RunDirectory.start(folder, config(), resume=True).close()


def test_the_owner_is_written_once_and_is_not_lost_with_the_lock(tmp_path: Path) -> None:
    with RunDirectory.start(tmp_path, config()) as run:
        owner = run.owner
    (tmp_path / ".lock").write_text("")  # a kill while the lock is written
    with RunDirectory.start(tmp_path, config(), resume=True) as run:
        assert run.owner == owner
    (tmp_path / ".owner").unlink()  # a run of an older version, whose lock has it
    (tmp_path / ".lock").write_text('{"run": "older", "driver": "host:1"}')
    with RunDirectory.start(tmp_path, config(), resume=True) as run:
        assert run.owner == "older"


def test_places_may_change_and_the_name_stays(tmp_path: Path) -> None:
    def at(place: str, name: str, **more: object) -> ResolvedConfig:
        data = {"format": "coco", "root": place, "train": "a.json", "val": "b.json"}
        student = {"fpn_channels": 32, "checkpoint": f"{place}/w.pt"} | more
        return config(name=name, data=data, student=student)

    RunDirectory.start(tmp_path, at("/old", "first")).close()
    with RunDirectory.start(tmp_path, at("/new", "renamed"), resume=True) as run:
        assert run.name == run.read_config()["name"] == "first"
        assert run.read_config()["data"]["root"] == "/new"
    with pytest.raises(StorageError, match=r"student\.fpn_channels"):
        RunDirectory.start(tmp_path, at("/new", "first", fpn_channels=64), resume=True)
    with pytest.raises(StorageError, match=r"student\.checkpoint"):
        RunDirectory.start(tmp_path, at("/new", "first", checkpoint=None), resume=True)
