"""The content of a training set, read from its annotations before anything else is."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from autokd.config import CocoData, ShapesData, SplitFolders, VocData, YoloData
from autokd.data.columns import read_columns
from autokd.data.convert import as_coco
from autokd.data.scene import MAX_OBJECTS, SHAPES
from autokd.errors import DataError
from autokd.space import DataContent


def content_of(data: ShapesData | CocoData | VocData | YoloData, cache_dir: Path | None = None) -> DataContent:
    """Return the classes and objects of the training split; no image is decoded, and nothing is generated.

    Args:
        data: the ``data`` section of a configuration.
        cache_dir: folder of the cache, which keeps what is read; None: nothing is kept.

    Returns:
        The content; of a generated set, the most objects that each image may show.

    Raises:
        DataError: if the annotations are missing or broken.
    """
    if isinstance(data, ShapesData):
        return DataContent(len(SHAPES), (MAX_OBJECTS,) * data.num_train)
    require_root(data.root)
    if cache_dir is None and not isinstance(data, CocoData):
        with tempfile.TemporaryDirectory(prefix="autokd-") as folder:  # a set in another format is converted somewhere
            return _content(as_coco(data, Path(folder)), None)
    return _content(data if isinstance(data, CocoData) else as_coco(data, Path(cache_dir or ".")), cache_dir)


def require_root(root: Path) -> None:
    """Check that the data set's folder exists.

    Raises:
        DataError: if it does not.
    """
    if not root.is_dir():
        raise DataError(f"data.root: {root} is no folder. Give the folder that holds the annotation files.")


def _content(data: CocoData, cache_dir: Path | None) -> DataContent:
    folder = data.images.train if isinstance(data.images, SplitFolders) else data.images
    columns = read_columns(data.root / data.train, data.root / folder, cache_dir)
    # Crowd regions are not trained on.
    trained = np.add.accumulate(np.concatenate([[0], ~columns.is_crowd]))
    objects = np.diff(trained[columns.box_starts])
    return DataContent(len(columns.class_names), tuple(objects.tolist()))
