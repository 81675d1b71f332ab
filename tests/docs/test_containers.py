"""``docs/clusters``: the container file and the compose file say what AutoKD does; no builder is needed to see it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from autokd.cli import app
from autokd.documents import load_document

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "clusters"
CONTAINERFILE = FOLDER / "Containerfile"
KNOWN = {"FROM", "WORKDIR", "RUN", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", CONTAINERFILE.read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def last(word: str) -> str:
    return [rest for name, rest in instructions() if name == word][-1]


def copied() -> list[str]:
    """Return what comes from the repository."""
    found = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")]
    return [path for paths in found for path in paths]


def is_taken(arguments: list[str]) -> None:
    """The command line takes these arguments of ``autokd``; nothing is run."""
    command = typer.main.get_command(app)
    while hasattr(command, "get_command"):  # a group, such as that of tokens
        name, *arguments = arguments
        command = command.get_command(typer.Context(command), name)
        assert command is not None, name
    command.make_context(name, arguments)


def test_the_image_is_of_a_fixed_version_and_runs_as_a_user_of_few_rights() -> None:
    assert {name for name, _ in instructions()} <= KNOWN
    images = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", image) for image in images), images
    users = [i for i, (name, _) in enumerate(instructions()) if name == "USER"]
    assert users
    assert last("USER") not in ("root", "0")
    assert not any(name == "RUN" for name, _ in instructions()[users[-1] :]), "nothing is installed as that user"
    assert f"useradd --create-home --uid 10001 {last('USER')}" in CONTAINERFILE.read_text()


def test_the_image_starts_what_the_command_line_has() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["autokd"]
    is_taken(json.loads(last("CMD")))
    probe = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert probe[:2] == ["python", "-c"]
    compile(probe[2], "HEALTHCHECK", "exec")
    assert '"/health"' in (ROOT / "autokd" / "service" / "rest.py").read_text()
    extras = re.search(r"\*\.whl\)\[([\w,]+)\]", CONTAINERFILE.read_text())
    assert extras is not None
    document = (ROOT / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in document for extra in extras[1].split(","))


@pytest.mark.slow
def test_what_the_image_copies_is_enough_for_the_wheel(tmp_path: Path) -> None:
    ignored = (FOLDER / "Containerfile.dockerignore").read_text().split()
    for path in copied():
        assert f"!{path}" in ignored, "the build sees nothing else"
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, tmp_path / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, tmp_path / path)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist")]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "dist").glob("autokd-*.whl"))) == 1


def test_the_services_of_the_compose_file_fit_together() -> None:
    document = load_document(FOLDER / "compose.yaml").data
    assert set(document) <= {"name", "services", "volumes", "secrets"}
    services = document["services"]
    allowed = {
        "image", "build", "command", "environment", "secrets", "volumes", "ports", "healthcheck", "depends_on",
        "restart", "shm_size", "init",
    }  # fmt: skip
    for service in services.values():
        assert set(service) <= allowed
        assert re.search(r":\d", service["image"]), "an image has a version"
        assert set(service.get("secrets", [])) <= set(document["secrets"])
        for volume in service.get("volumes", []):
            name = volume.partition(":")[0]
            assert name in document["volumes"] or name.startswith("${AUTOKD_DATA")
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "nothing is encrypted"
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in services[other]
    build = services["service"]["build"]
    assert (FOLDER / build["context"]).resolve() == ROOT
    assert (FOLDER / build["context"] / build["dockerfile"]).resolve() == CONTAINERFILE
    version = re.search(r'__version__ = "([^"]+)"', (ROOT / "autokd" / "__init__.py").read_text())
    assert version is not None
    assert services["service"]["image"] == f"autokd:{version[1]}"
    is_taken(services["service"]["command"])


def test_commands_of_the_page_are_those_of_the_command_line() -> None:
    text = (FOLDER / "containers.md").read_text(encoding="utf-8")
    assert "@/run/secrets/database_address" in text
    commands = re.findall(r"exec service autokd (.+)|autokd:[\d.]+ (\w+)`", text)
    assert len(commands) == 2
    for inside, run in commands:
        is_taken((inside or run).split())
