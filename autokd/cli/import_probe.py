"""``python -m autokd.cli.import_probe MODULE ...``: try the imports one by one, a line of JSON for each.

It runs in a process of its own, because a package that was built for another torch may crash Python, and because an
import has side effects on the process. What packages print is discarded.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable


def main(modules: list[str]) -> None:
    """Write a line after each import, so that the first module without a line is the one that ended the process.

    Args:
        modules: names of modules.
    """
    with os.fdopen(os.dup(1), "w", buffering=1) as results:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        for module in modules:
            results.write(json.dumps(probe(module)) + "\n")


def probe(module: str) -> dict[str, str | bool]:
    """Import a module.

    Args:
        module: name of the module.

    Returns:
        "module", "missing", "error" ("" if the import works), "version" and "note".
    """
    result: dict[str, str | bool] = {"module": module, "missing": False, "error": "", "version": "", "note": ""}
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            imported = importlib.import_module(module)
            result["version"] = str(getattr(imported, "__version__", ""))
            result["note"] = NOTES[module]() if module in NOTES else ""
    except ModuleNotFoundError as error:
        result["missing"] = error.name == module
        result["error"] = _in_words(error)
    # A broken package may raise anything, SystemExit included; every error is a finding here.
    except BaseException as error:  # noqa: BLE001
        result["error"] = _in_words(error)
    return result


def _in_words(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _torch_note() -> str:
    """Return the devices of torch; a small sum shows that they compute."""
    import torch

    if not torch.cuda.is_available():
        return "no CUDA device; computes on the CPU"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    torch.ones(2, device="cuda").sum().item()
    return f"CUDA {torch.version.cuda}: {', '.join(names)}"


def _torchvision_note() -> str:
    """Call an operator: they are compiled for one version of torch, and fail with another. Name the weights found."""
    import torch
    import torchvision

    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    return _weights_note()


def _weights_note() -> str:
    """Return which of torchvision's pretrained weights lie here, and where AutoKD looks for them."""
    try:
        from autokd.detectors import found_weights, weight_folders

        found = found_weights()
    except (ImportError, OSError):  # another package is broken, which has a line of its own, or a folder is closed
        return ""
    folders = ", ".join(map(str, weight_folders()))
    if not found:
        return f"pretrained weights: none in {folders}; named ones are downloaded there at their first use"
    return f"pretrained weights in {folders}: {', '.join(found)}"


def _mmcv_note() -> str:
    from autokd.mmcv_ops import provide_mmcv_ops

    state = provide_mmcv_ops()
    importlib.import_module("mmcv.ops")
    return f"operators: {state}"


def _mmdet_note() -> str:
    """Import the models, which need mmcv's operators."""
    from autokd.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    importlib.import_module("mmdet.models")
    return ""


NOTES: dict[str, Callable[[], str]] = {
    "torch": _torch_note,
    "torchvision": _torchvision_note,
    "mmcv": _mmcv_note,
    "mmdet": _mmdet_note,
}

if __name__ == "__main__":
    # ``-m`` searches the working folder first, where a file named torch.py may lie; the command ``autokd`` does not.
    del sys.path[0]
    main(sys.argv[1:])
