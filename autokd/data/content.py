"""The content of a training set, read from its annotations before anything else is."""

from __future__ import annotations

from collections import Counter

from autokd.config import CocoData, ShapesData
from autokd.data.annotation_file import read_annotation_file
from autokd.data.scene import MAX_OBJECTS, SHAPES
from autokd.errors import DataError
from autokd.space import DataContent


def content_of(data: ShapesData | CocoData) -> DataContent:
    """Return the classes and objects of the training split; no image is read, and nothing is generated.

    Args:
        data: the ``data`` section of a configuration.

    Returns:
        The content; of a generated set, the most objects that each image may show.

    Raises:
        DataError: if the annotation file is missing or broken.
    """
    if isinstance(data, ShapesData):
        return DataContent(len(SHAPES), (MAX_OBJECTS,) * data.num_train)
    require_root(data)
    found = read_annotation_file(data.root / data.train)
    # Boxes that the cleaning would drop are counted too: what is refused must be impossible.
    objects = Counter(item["image_id"] for item in found["annotations"] if item.get("iscrowd") != 1)
    return DataContent(len(found["categories"]), tuple(objects[image["id"]] for image in found["images"]))


def require_root(data: CocoData) -> None:
    """Check that the data set's folder exists.

    Raises:
        DataError: if it does not.
    """
    if not data.root.is_dir():
        raise DataError(f"data.root: {data.root} is no folder. Give the folder that holds the annotation files.")
