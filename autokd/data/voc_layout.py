"""Pascal VOC's layout: an XML file an image, and a list of names a split; or a folder of both for each split."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from globox import BoundingBox, ParsingError

from autokd.config import VocData
from autokd.data.images import read_header
from autokd.data.labeled_images import LabeledImage, ObjectBox, ReadImage, Splits, is_image
from autokd.errors import DataError


def voc_splits(data: VocData) -> Splits:
    """Return the files of each split; which image an XML file belongs to is known when it is read.

    Args:
        data: the section of the configuration.

    Raises:
        DataError: if a split is missing or empty, or an image has no XML file.
    """
    parts = {"train": data.train, "val": data.val, "test": data.test}
    return {name: _files(data, part) for name, part in parts.items() if part is not None}


def read_voc_image(labeled: LabeledImage) -> ReadImage:
    """Read the XML file of an image.

    Args:
        labeled: the XML file, and the folder of its image.

    Raises:
        DataError: if it is no such file.
    """
    assert labeled.labels is not None, "an image of this format is found by its labels"
    try:
        root = ElementTree.parse(labeled.labels).getroot()
        boxes = [BoundingBox.from_xml(node) for node in root.iter("object")]
        sides = [int(float(root.findtext(f"size/{side}") or 0)) for side in ("height", "width")]
    # The reader of boxes raises what its parsers raise, and asserts that corners are in order.
    except (ElementTree.ParseError, OSError, ParsingError, AssertionError, ValueError, TypeError) as error:
        raise DataError(
            f"{labeled.labels}: this is no annotation in Pascal VOC's format ({error}). Each 'object' has a 'name' and "
            "a 'bndbox' with xmin, ymin, xmax and ymax, each maximum at least its minimum. Correct or export it again."
        ) from None
    image = _image(labeled.image, root.findtext("filename") or "", labeled.labels.stem)
    # Some programs write no size, or 0.
    height, width = sides if min(sides) > 0 else read_header(image).upright_size
    return ReadImage(image, (height, width), tuple(ObjectBox(box.label, box.ltrb) for box in boxes))


def _files(data: VocData, part: Path) -> list[LabeledImage]:
    place = data.root / part
    if place.is_dir():
        found = [LabeledImage(place, path) for path in sorted(place.glob("*.xml"))]
    else:
        try:
            lines = place.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise DataError(f"{place}: the list of images cannot be read ({error}). Correct data.root.") from None
        # A list of one class has a second column.
        names = [line.split()[0] for line in lines if line.strip()]
        folder = data.root / data.annotations
        found = [LabeledImage(data.root / data.images, folder / f"{name}.xml") for name in names]
        for labeled, name in zip(found, names):
            if not labeled.labels.is_file():  # type: ignore[union-attr]
                raise DataError(
                    f"{place}: lists {name!r}, but there is no file {labeled.labels}. Put it there, or remove the name."
                )
    if not found:
        raise DataError(f"{place}: there is no XML file of an image. Correct the key, or export the split again.")
    return found


def _image(folder: Path, file_name: str, stem: str) -> Path:
    """Return the image that an XML file names; the one of the XML file's own name if that is missing."""
    named = folder / Path(file_name.replace("\\", "/")).name
    if named.is_file():
        return named
    return next((path for path in sorted(folder.glob(f"{stem}.*")) if is_image(path)), named)
