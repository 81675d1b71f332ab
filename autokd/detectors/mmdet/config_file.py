"""The user's MMDetection config: found by path or by its name in the zoo, read, and fitted to the data set.

A config file is Python, and reading it runs it, with what it imports (``custom_imports``). So only the file
that the user names is read, and those that it names itself as its bases.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autokd.config import MmdetDetector
from autokd.detectors.mmdet.library import PROGRAM_ERRORS, require_mmdet
from autokd.detectors.mmdet.option import check_option
from autokd.errors import DetectorError

_CLASS_HEADS = ("bbox_head", "mask_head", "mask_iou_head")
"""Parts of a model whose layers depend on the number of classes; a region proposal head is none of them."""
_NUMBER = "num_classes"


def find_config(name: str) -> Path:
    """Return the file of a config.

    Args:
        name: a path, or a name from the zoo of the installed MMDetection: that of the file, with or without its folder
            and ``.py``, such as ``retinanet_r50_fpn_1x_coco``.

    Raises:
        DetectorError: if there is no such file, or the zoo has several of that name.
    """
    path = os.path.expanduser(name)
    if os.path.isfile(path):
        return Path(path)
    zoo = _zoo()
    wanted = name.removesuffix(".py").split("/")
    found = sorted(file for stem, file in zoo if stem.split("/")[-len(wanted) :] == wanted)
    if len(found) > 1:
        stems = [str(file.relative_to(file.parents[1]).with_suffix("")) for file in found]
        raise DetectorError(f"config: {name!r} is the name of {', '.join(stems)}. Give one of these.")
    if not found:
        raise DetectorError(
            f"config: {name!r} is no file (seen from {Path.cwd()}) and no config of the installed MMDetection's zoo. "
            + _suggestion(wanted[-1], [stem.split("/")[-1] for stem, _ in zoo])
        )
    return found[0]


def _zoo() -> list[tuple[str, Path]]:
    """Return (folder/name, file) of every config that came with MMDetection."""
    require_mmdet()
    import mmdet

    folder = Path(mmdet.__file__).parent
    for root in (folder / ".mim" / "configs", folder.parent / "configs"):
        if root.is_dir():
            return [(file.relative_to(root).with_suffix("").as_posix(), file) for file in root.rglob("*.py")]
    return []


def _suggestion(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return "Correct the path, or take a name such as 'retinanet_r50_fpn_1x_coco'." if names else "Correct the path."


def read_config(section: MmdetDetector) -> Any:
    """Return the ``mmengine.Config`` of a section with its ``options`` applied. Reading it runs the file.

    Raises:
        DetectorError: if there is no such file, it fails, it describes no model, or an option has no place in it.
    """
    path = find_config(section.config)
    require_mmdet()
    from mmengine import Config

    try:
        config = Config.fromfile(str(path))
    except PROGRAM_ERRORS as error:
        raise DetectorError(
            f"{path}: running this config failed with {type(error).__name__}: {error}. Correct the file; its bases "
            "are seen from its own folder."
        ) from error
    if not isinstance(config.get("model"), Mapping):
        raise DetectorError(f"{path}: this config has no 'model', so nothing can be built. Name a detector's config.")
    for key, value in section.options.items():
        check_option(config, key, value, path)
    config.merge_from_dict(section.options)
    return config


def resolve_config(section: MmdetDetector, num_classes: int) -> Any:
    """Return the config with every head set to ``num_classes``; the model and its weights belong to this config."""
    config = read_config(section)
    for head in _class_heads(config.model):
        head[_NUMBER] = num_classes
        _replace(head, num_classes)
    return config


def _class_heads(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every head whose layers depend on the classes; those of a cascade one by one."""
    for name, value in part.items():
        if name in _CLASS_HEADS and value is not None:
            yield from value if isinstance(value, (list, tuple)) else [value]
        elif isinstance(value, Mapping):
            yield from _class_heads(value)


def _replace(part: Any, num_classes: int) -> None:
    """Set the number inside a head too: losses that weigh classes repeat it."""
    for name, value in part.items():
        if name == _NUMBER:
            part[name] = num_classes
        elif isinstance(value, Mapping):
            _replace(value, num_classes)


def config_text(section: MmdetDetector) -> str:
    """Return the config's content that decides the model's structure, and not its path, for keys of caches."""
    config = read_config(section)
    model = json.dumps(config.model.to_dict(), sort_keys=True, default=str)
    about = {"framework": "mmdet", "model": hashlib.sha256(model.encode()).hexdigest(), "new_head": section.new_head}
    return json.dumps(about | {"classes": section.classes}, sort_keys=True)
