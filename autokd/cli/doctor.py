"""``autokd doctor``: check which packages are installed, missing or broken, and print the commands that repair it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

State = Literal["works", "missing", "broken", "too old"]

TIMEOUT_S = 120.0
"""Time limit for all imports together; they take about eight seconds on an idle core."""

TRANSFORMERS_INSTALL = "pip install -e '.[transformers]'   (in AutoKD's folder; no compiler needed)"
MMDET_INSTALL = "pip install -e '.[mmdet]'   (in AutoKD's folder; no compiler needed)"
COMPILED_MMCV = "optional, for all of mmcv's operators: pip install onedl-mim, then: mim install onedl-mmcv"


@dataclass(frozen=True, slots=True)
class Part:
    """A package that AutoKD uses.

    Args:
        module: name by which it is imported.
        distribution: name by which pip installs it.
        needed: AutoKD cannot run without it.
        remedy: command that installs it; empty: ``pip install`` of the distribution.
    """

    module: str
    distribution: str
    needed: bool = True
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """State of a package; ``remedy`` is the command that repairs it, empty if nothing needs to be done."""

    name: str
    version: str
    state: State
    needed: bool
    note: str
    remedy: str


BASE = tuple(
    Part(module, distribution)
    for module, distribution in (
        ("torch", "torch"),
        ("torchvision", "torchvision"),
        ("numpy", "numpy"),
        ("PIL", "pillow"),
        ("scipy", "scipy"),
        ("pycocotools.mask", "pycocotools"),
        ("faster_coco_eval", "faster-coco-eval"),
        ("msgspec", "msgspec"),
        ("globox", "globox"),
        ("optuna", "optuna"),
        ("optuna_dashboard", "optuna-dashboard"),
        ("sqlalchemy", "sqlalchemy"),
        ("ray", "ray"),
        ("pydantic", "pydantic"),
        ("ruamel.yaml", "ruamel.yaml"),
        ("jinja2", "jinja2"),
        ("plotly", "plotly"),
    )
)
OPTIONAL = (
    Part("mmengine", "onedl-mmengine", needed=False, remedy=MMDET_INSTALL),
    Part("mmcv", "onedl-mmcv", needed=False, remedy=MMDET_INSTALL),
    Part("mmdet", "onedl-mmdetection", needed=False, remedy=MMDET_INSTALL),
    Part("transformers", "transformers", needed=False, remedy=TRANSFORMERS_INSTALL),
    Part("psycopg", "psycopg", needed=False, remedy="pip install -e '.[postgresql]'   (in AutoKD's folder)"),
)


def examine(parts: Sequence[Part] = BASE + OPTIONAL, timeout_s: float = TIMEOUT_S) -> list[Finding]:
    """Import every package in a process that an import may crash, and return what was found, Python itself first.

    Args:
        parts: packages to check.
        timeout_s: time limit in seconds for all imports together.
    """
    findings = [Finding("python", platform.python_version(), "works", True, sys.executable, "")]
    results = _probe([part.module for part in parts], timeout_s)
    findings += [_judge(part, results[part.module]) for part in parts]
    return findings


def base_works(findings: Sequence[Finding]) -> bool:
    """Return whether nothing that AutoKD needs is missing, broken or too old.

    Args:
        findings: result of ``examine``.
    """
    return all(finding.state == "works" for finding in findings if finding.needed)


def as_json(findings: Sequence[Finding]) -> str:
    """Return the findings as JSON: ``{"works": bool, "parts": [{"name", "version", "state", ...}]}``.

    Args:
        findings: result of ``examine``.
    """
    document = {"works": base_works(findings), "parts": [asdict(finding) for finding in findings]}
    return json.dumps(document, indent=2)


def as_table(findings: Sequence[Finding]) -> RenderableType:
    """Return the findings as a table, with the commands that repair them below.

    Args:
        findings: result of ``examine``.
    """
    table = Table("", "version", "state", "")
    for finding in findings:
        style = {"works": "", "missing": "yellow"}.get(finding.state, "red")
        style = "bold red" if finding.needed and finding.state != "works" else style
        table.add_row(*(Text(cell, style) for cell in (finding.name, finding.version, finding.state, finding.note)))
    remedies: dict[str, list[str]] = {}
    for finding in findings:
        if finding.remedy:
            remedies.setdefault(finding.remedy, []).append(finding.name)
    lines = [f"{', '.join(names)}: {remedy}" for remedy, names in remedies.items()]
    verdict = "AutoKD works here." if base_works(findings) else "AutoKD does not work here: see what is red."
    return Group(table, *(Text(line) for line in lines), Text(verdict))


def _judge(part: Part, result: dict[str, str | bool]) -> Finding:
    try:
        version = importlib.metadata.version(part.distribution)
    except importlib.metadata.PackageNotFoundError:
        # Some packages come under several distributions' names (mmcv, onedl-mmcv); the module knows its version.
        version = str(result["version"])
    required = _required(part.distribution)
    install = part.remedy or f"pip install '{required or part.distribution}'"
    if result["missing"]:
        return Finding(part.module, "", "missing", part.needed, "", install)
    if result["error"]:
        return Finding(part.module, version, "broken", part.needed, str(result["error"]), _repair(part))
    if is_too_old(version, required):
        return Finding(part.module, version, "too old", part.needed, f"needs {required}", install)
    note = str(result["note"])
    remedy = COMPILED_MMCV if part.module == "mmcv" and "supplied" in note else ""
    return Finding(part.module, version, "works", part.needed, note, remedy)


def _repair(part: Part) -> str:
    if part.module in ("torch", "torchvision"):
        return "pip install --force-reinstall torch torchvision   (together: torchvision is built for one torch)"
    return f"pip install --force-reinstall --no-deps '{_required(part.distribution) or part.distribution}'"


def _required(distribution: str) -> str:
    """Return the requirement of AutoKD's metadata for a distribution, e.g. "optuna>=4.5"; "" if there is none."""
    try:
        requirements = importlib.metadata.requires("autokd") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    for requirement in requirements:
        asked = requirement.split(";")[0].strip()
        name = (
            asked.replace("[", " ").replace(">", " ").replace("<", " ").replace("=", " ").replace("!", " ").split()[0]
        )
        if name.lower() == distribution:
            return asked
    return ""


def is_too_old(version: str, required: str) -> bool:
    """Return whether an installed version is below the lowest that a requirement such as "ray>=2.40,<3" allows."""
    lowest = required.partition(">=")[2].split(",")[0]
    return bool(lowest and version) and _numbers(version) < _numbers(lowest)


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for piece in version.split("+")[0].split("."):
        if not piece.isdigit():
            break
        numbers.append(int(piece))
    return tuple(numbers)


def _probe(modules: list[str], timeout_s: float) -> dict[str, dict[str, str | bool]]:
    """Return the result of each import; the first without a result is the one that ended the process."""
    results: dict[str, dict[str, str | bool]] = {}
    while left := modules[len(results) :]:
        lines, end = _run_probe(left, timeout_s)
        results |= {str(line["module"]): line for line in lines}
        if len(lines) < len(left):
            culprit = left[len(lines)]
            results[culprit] = {"module": culprit, "missing": False, "error": end, "version": "", "note": ""}
    return results


def _run_probe(modules: list[str], timeout_s: float) -> tuple[list[dict[str, str | bool]], str]:
    """Return the lines that the process wrote, and a text that says how it ended."""
    command = [sys.executable, "-m", "autokd.cli.import_probe", *modules]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        written, end = done.stdout, f"importing it ended Python (exit code {done.returncode})"
    except subprocess.TimeoutExpired as expired:
        raw = expired.stdout or b""
        written = raw.decode() if isinstance(raw, bytes) else raw
        end = f"importing it took more than {timeout_s:.0f} s"
    return [json.loads(line) for line in written.splitlines() if line.endswith("}")], end
