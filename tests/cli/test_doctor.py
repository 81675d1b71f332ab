"""``autokd doctor`` finds what is missing, broken or too old among pretended packages, and never breaks itself."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from autokd.cli import app, doctor
from autokd.cli.doctor import BASE, Finding, Part, examine


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a module that the examined Python finds first; return its part."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))

    def write(name: str, text: str) -> Part:
        (tmp_path / f"{name}.py").write_text(text)
        return Part(name, name.replace("_", "-"))

    return write


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_every_kind_of_broken_import_is_reported_and_the_others_still_examined(package):
    parts = [
        package("pretended_good", "__version__ = '1.2'\nprint('noise on standard output')\n"),
        package("pretended_abi", "raise ImportError('undefined symbol: _ZN3c10\\nsecond line')\n"),
        package("pretended_killer", "import os\nos._exit(134)\n"),
        package("pretended_quitter", "raise SystemExit('no license')\n"),
        package("pretended_dependent", "import pretended_absentee\n"),
        Part("pretended_absentee", "pretended-absentee"),
        package("pretended_last", ""),
    ]
    found = by_name(examine(parts))
    assert {name: finding.state for name, finding in found.items()} == {
        "python": "works",
        "pretended_good": "works",
        "pretended_abi": "broken",
        "pretended_killer": "broken",
        "pretended_quitter": "broken",
        "pretended_dependent": "broken",
        "pretended_absentee": "missing",
        "pretended_last": "works",
    }
    assert found["pretended_good"].version == "1.2"
    assert found["pretended_abi"].note == "ImportError: undefined symbol: _ZN3c10"
    assert found["pretended_killer"].note == "importing it ended Python (exit code 134)"
    assert found["pretended_quitter"].note == "SystemExit: no license"
    assert "pretended_absentee" in found["pretended_dependent"].note
    assert found["pretended_absentee"].remedy == "pip install 'pretended-absentee'"


def test_import_that_never_ends_is_reported_and_the_others_still_examined(package):
    parts = [package("pretended_sleeper", "import time\ntime.sleep(60)\n"), package("pretended_next", "")]
    found = by_name(examine(parts, timeout_s=2))
    assert found["pretended_sleeper"].note == "importing it took more than 2 s"
    assert found["pretended_next"].state == "works"


def test_version_below_the_range_of_autokd_is_too_old(package, monkeypatch):
    package("optuna", "__version__ = '3.6.1'\n")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.6.1")
    finding = by_name(examine([Part("optuna", "optuna")]))["optuna"]
    assert (finding.state, finding.version) == ("too old", "3.6.1")
    assert finding.remedy == f"pip install '{finding.note.removeprefix('needs ')}'"
    assert finding.remedy.startswith("pip install 'optuna>=4")


@pytest.mark.parametrize(
    ("version", "required", "expected"),
    [
        ("2.10.0", "torch>=2.8", False),
        ("2.7.1+cu126", "torch>=2.8", True),
        ("2.8", "torch>=2.8", False),
        ("10.0rc1", "pillow>=10.3", True),
        ("1.0", "", False),
        ("", "torch>=2.8", False),
    ],
)
def test_versions_are_compared_by_number(version, required, expected):
    assert doctor.is_too_old(version, required) is expected


def test_base_names_every_dependency_of_autokd_but_those_that_print():
    names = {part.distribution for part in BASE}
    declared = {
        line.partition(";")[0].replace("[", ">").partition(">")[0].strip().lower()
        for line in importlib.metadata.requires("autokd") or []
        if "extra ==" not in line
    }
    assert declared - names == {"typer", "rich"}
    assert names <= declared


def invoke(monkeypatch, findings: list[Finding], *arguments: str):
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"})


WORKS = Finding("torch", "2.15.0", "works", True, "no CUDA device", "")
MISSING = Finding("optuna", "", "missing", True, "", "pip install 'optuna>=4.5'")
OPTIONAL = Finding("mmdet", "", "missing", False, "", doctor.MMDET_INSTALL)


def test_command_prints_what_to_type_and_ends_with_one_where_the_base_is_broken(monkeypatch):
    result = invoke(monkeypatch, [WORKS, MISSING, OPTIONAL])
    assert result.exit_code == 1
    assert "optuna: pip install 'optuna>=4.5'" in result.output
    assert "mmdet: pip install -e '.[mmdet]'" in result.output
    assert "does not work" in result.output


def test_command_ends_with_zero_where_only_optional_parts_are_missing(monkeypatch):
    result = invoke(monkeypatch, [WORKS, OPTIONAL])
    assert result.exit_code == 0
    assert "AutoKD works here." in result.output


def test_json_holds_the_same_findings(monkeypatch):
    result = invoke(monkeypatch, [WORKS, MISSING], "--json")
    document = json.loads(result.output)
    assert result.exit_code == 1
    assert document["works"] is False
    assert document["parts"][1] == {
        "name": "optuna",
        "version": "",
        "state": "missing",
        "needed": True,
        "note": "",
        "remedy": "pip install 'optuna>=4.5'",
    }


@pytest.mark.slow
def test_whole_command_reports_a_package_that_is_pretended_missing(tmp_path):
    import torch

    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['optuna'] = None\n")
    done = subprocess.run(
        [sys.executable, "-c", "from autokd.cli import main; main()", "doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1, done.stderr
    parts = {part["name"]: part for part in json.loads(done.stdout)["parts"]}
    assert parts["optuna"]["state"] == "missing"
    assert "pip install 'optuna" in parts["optuna"]["remedy"]
    assert parts["optuna_dashboard"]["state"] == "broken"  # it imports optuna
    assert parts["torch"]["state"] == "works"
    assert torch.__version__.startswith(parts["torch"]["version"])
    assert parts["torch"]["note"].startswith(("CUDA", "no CUDA device"))
    assert parts["mmcv"]["state"] == "missing" or parts["mmcv"]["note"].startswith("operators: ")


def test_pretrained_weights_that_lie_here_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOKD_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    part = Part("torchvision", "torchvision")
    note = by_name(examine([part]))["torchvision"].note
    assert f"none in {tmp_path}, {tmp_path / 'torch' / 'hub' / 'checkpoints'}" in note
    (tmp_path / "fcos_resnet50_fpn_coco-99b0c9b7.pth").write_bytes(b"")
    (tmp_path / "other.pth").write_bytes(b"")
    note = by_name(examine([part]))["torchvision"].note
    assert note.endswith(": fcos_resnet50_fpn: COCO_V1")
