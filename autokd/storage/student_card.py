"""``student.json``: what the weights of a student do not say, so that they are used without the data set.

The file lies beside ``student.pt``: the detector's section, the classes, and the size of the network's input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autokd.config import Detector
from autokd.errors import StorageError
from autokd.files import write_text_atomically

CARD_FILE = "student.json"
SCHEMA = 1
_MAX_BYTES = 2**20


class StudentCard(BaseModel):
    """Content of student.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: int = Field(default=SCHEMA, alias="schema")
    """Number of the format."""
    name: str = ""
    """Name of the run."""
    detector: Detector
    """Section of the detector, as in the config file."""
    classes: tuple[str, ...]
    """Names; label k is ``classes[k]``."""
    category_ids: tuple[int, ...]
    """COCO category id of each label."""
    image_size_px: tuple[int, int]
    """(height, width) of the network's input."""
    has_two_frames: bool = False
    """Whether images that lie across the input have it turned (``data.orientations``)."""

    @model_validator(mode="after")
    def _one_id_a_class(self) -> StudentCard:
        if len(self.classes) != len(self.category_ids) or not self.classes:
            raise ValueError(f"found {len(self.classes)} classes and {len(self.category_ids)} category ids")
        return self

    def to_data(self) -> dict[str, Any]:
        """Return the card as plain data."""
        return self.model_dump(mode="json", by_alias=True)

    def to_json(self) -> str:
        """Return the text of student.json."""
        return json.dumps(self.to_data(), indent=1, ensure_ascii=False) + "\n"

    def write(self, folder: Path) -> Path:
        """Write student.json.

        Args:
            folder: where it goes.

        Returns:
            Path of the file.
        """
        write_text_atomically(folder / CARD_FILE, self.to_json())
        return folder / CARD_FILE

    @classmethod
    def from_json(cls, text: str, source: str) -> StudentCard:
        """Return the card of a text.

        Args:
            text: JSON as ``to_json`` writes it.
            source: where the text comes from, for errors.

        Raises:
            StorageError: if it is no card, or of another schema.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise StorageError(f"{source}: not a card of a student: {error}.") from None
        found = data.get("schema") if isinstance(data, dict) else None
        if found != SCHEMA:
            raise StorageError(f"{source}: schema {found!r}; this version of AutoKD reads schema {SCHEMA}.")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            raise StorageError(f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None

    @classmethod
    def read(cls, folder: Path) -> StudentCard | None:
        """Return the card of a folder; None if it has none.

        Args:
            folder: run directory.

        Raises:
            StorageError: if the file is broken or of another schema.
        """
        path = folder / CARD_FILE
        try:
            with path.open(encoding="utf-8") as file:
                return cls.from_json(file.read(_MAX_BYTES), str(path))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"{path}: cannot be read: {error}.") from None
