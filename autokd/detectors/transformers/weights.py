"""Weights of a folder of transformers: from safetensors files alone, since reading pickled ones may run code."""

from __future__ import annotations

from pathlib import Path

from autokd.errors import DetectorError

_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_SAFE = ("model.safetensors", "model.safetensors.index.json")


def check_safe(folder: Path) -> None:
    """Check that a folder has weights in a safetensors file.

    Args:
        folder: what ``save_pretrained`` wrote.

    Raises:
        DetectorError: if it has pickled weights alone, or none.
    """
    if any((folder / name).is_file() for name in _SAFE):
        return
    if any((folder / name).is_file() for name in _PICKLED):
        raise pickled_weights(str(folder))
    raise DetectorError(
        f"{folder}: there is no {_SAFE[0]}. Give a folder that save_pretrained wrote, with config.json and {_SAFE[0]}."
    )


def pickled_weights(name: str) -> DetectorError:
    """Return the error for a model whose weights are pickled.

    Args:
        name: its folder, or its name on the hub.
    """
    return DetectorError(
        f"{name}: has pickled weights alone ({_PICKLED[0]}), whose reading may run code, and no {_SAFE[0]}. Convert "
        "them where you trust them: AutoModel.from_pretrained(NAME).save_pretrained(FOLDER), with the class of its "
        "kind, and give FOLDER as 'name'."
    )
