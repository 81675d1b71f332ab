"""Backbones alone as a framework of teachers. Importing this module imports no transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from autokd.config import BackboneTeacher
from autokd.detectors.backbone.build import build_backbone_teacher
from autokd.detectors.contract import Detector
from autokd.detectors.framework import Framework
from autokd.files import content_digest


class BackboneFramework(Framework[BackboneTeacher]):
    """Builds ``BackboneTeacher`` sections: maps by stride, no losses, no detections."""

    def build(
        self,
        section: BackboneTeacher,
        num_classes: int,
        image_size_px: tuple[int, int],
        classes: Sequence[str] | None,
    ) -> Detector:
        """See ``Framework.build``."""
        return build_backbone_teacher(section, num_classes, image_size_px)

    def taps(self, section: BackboneTeacher) -> tuple[str, ...]:
        """See ``Framework.taps``: the maps alone."""
        return ("fpn",)

    def structure(self, section: BackboneTeacher) -> str:
        """See ``Framework.structure``: keys, and the weights of the folder, since it teaches with no others."""
        found = json.loads(section.model_dump_json(exclude={"checkpoint", "train"}))
        if section.folder is not None:
            found["name"] = [content_digest(path) for path in sorted(section.folder.glob("*.safetensors"))]
            found["model"] = (section.folder / "config.json").read_text() if self._has_config(section) else ""
        return json.dumps(found, sort_keys=True)

    def contents(self, section: BackboneTeacher) -> Mapping[str, str]:
        """See ``Framework.contents``."""
        return {} if section.folder is None else {"name": self.structure(section)}

    @staticmethod
    def _has_config(section: BackboneTeacher) -> bool:
        return section.folder is not None and (section.folder / "config.json").is_file()
