"""The files of a run that can be downloaded, by kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autokd.errors import AutoKDError, name_list


class NoFileError(AutoKDError):
    """A run has no file of a kind (yet)."""


@dataclass(frozen=True)
class RunFile:
    """A kind of file.

    Args:
        names: names of the file in the run directory; the first that exists is taken.
        meaning: what it is.
        media_type: its media type.
    """

    names: tuple[str, ...]
    meaning: str
    media_type: str = "application/octet-stream"


FILES = {
    "student": RunFile(("student.pt",), "weights of the student, for plain torchvision"),
    "mmdet": RunFile(("student.pth",), "checkpoint of the student in MMDetection's own format"),
    "mmdet-config": RunFile(("student.py",), "config of MMDetection for that checkpoint", "text/x-python"),
    "onnx": RunFile(("student.onnx",), "the student as ONNX (autokd export)"),
    "torchscript": RunFile(("student.torchscript.pt",), "the student as TorchScript (autokd export)"),
    "safetensors": RunFile(("student.safetensors",), "weights of the student as safetensors (autokd export)"),
    "distiller": RunFile(("best_distiller.yaml",), "the winning distiller", "application/yaml"),
    "report": RunFile(("report.html",), "the report on one page", "text/html"),
    "results": RunFile(("results.json",), "the numbers of the report", "application/json"),
    "config": RunFile(("config.yaml",), "the resolved configuration", "application/yaml"),
}
"""Kind -> file."""


def present_files(run_dir: Path) -> dict[str, Path]:
    """Return the kinds of files that a run has, with their paths.

    Args:
        run_dir: run directory.
    """
    found: dict[str, Path] = {}
    for kind, file in FILES.items():
        path = next((run_dir / name for name in file.names if _is_own_file(run_dir / name)), None)
        if path is not None:
            found[kind] = path
    return found


def file_of(run_dir: Path, kind: str) -> Path:
    """Return a file of a run.

    Args:
        run_dir: run directory.
        kind: its kind.

    Raises:
        NoFileError: if the run has none.
    """
    present = present_files(run_dir)
    if kind not in present:
        raise NoFileError(f"the run has no file {kind!r} yet; it has {name_list(present, empty='none')}.")
    return present[kind]


def _is_own_file(path: Path) -> bool:
    # A link in a run directory may lead anywhere on the operator's machine.
    return path.is_file() and not path.is_symlink()
