"""safetensors files of AutoKD: the weights of the plain model, with the student's card in the header."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from autokd.errors import StorageError, needs_extra
from autokd.storage import StudentCard

CARD_KEY = "autokd"
"""Key of the header's metadata that holds the card as JSON."""


def write_safetensors(path: Path, weights: dict[str, Tensor], card: StudentCard) -> None:
    """Write weights with the card.

    Args:
        path: the file.
        weights: name -> tensor of the plain model.
        card: section, classes and image size.
    """
    with needs_extra("safetensors", "export"):
        from safetensors.torch import save_file
    save_file(weights, path, metadata={"format": "pt", CARD_KEY: card.to_json()})


def card_in_safetensors(path: Path) -> StudentCard | None:
    """Return the card of a file; None if others wrote it.

    Args:
        path: a safetensors file.

    Raises:
        StorageError: if it is no such file, or its card is broken.
    """
    with needs_extra("safetensors", "export"):
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(CARD_KEY)
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path}: not a safetensors file: {error}.") from None
    return None if text is None else StudentCard.from_json(text, str(path))
