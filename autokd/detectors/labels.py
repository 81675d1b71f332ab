"""Matching classes by name: for each class of the data set, its index among the model's.

Legend: B images, A candidate boxes of an image, K classes of the data set, M classes of the model.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autokd.errors import DetectorError, name_list

_SHOWN = 10


def class_order(model_classes: Sequence[str], data_classes: Sequence[str], where: str = "teacher") -> tuple[int, ...]:
    """Return for each class of the data set its index among the model's classes.

    Args:
        model_classes: names of the model's classes; it may have more than the data set, which are left out.
        data_classes: names of the data set's classes.
        where: the model's place in errors.

    Raises:
        DetectorError: if the model lacks classes, naming them, or a name occurs twice.
    """
    for whose, names in ((where, model_classes), ("data set", data_classes)):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise DetectorError(f"{whose}: the class {twice[0]!r} occurs twice, so classes cannot be matched by name.")
    index = {name: k for k, name in enumerate(model_classes)}
    lacking = [name for name in data_classes if name not in index]
    if lacking:
        hints = {name: difflib.get_close_matches(name, model_classes, n=1) for name in lacking}
        meant = [f"{name!r} its {close[0]!r}" for name, close in hints.items() if close]
        raise DetectorError(
            f"{where}: does not know {name_list(map(repr, lacking), limit=_SHOWN)} of the data set's classes; it knows "
            f"{name_list(map(repr, model_classes), limit=_SHOWN, empty='no classes')}. "
            + (f"Is {' and '.join(meant)}? " if meant else "")
            + "Rename the categories in the annotation files, give the checkpoint's names as 'classes', or start a new "
            "head with 'new_head: true' and train it."
        )
    return tuple(index[name] for name in data_classes)


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Between the data set's labels and the model's: ``order[k]`` is the model's label of the data set's class k."""

    order: tuple[int, ...]
    num_model_classes: int
    model_classes: tuple[str, ...] | None = None
    """Names of the model's classes, where they are known."""

    @property
    def is_identity(self) -> bool:
        return self.order == tuple(range(self.num_model_classes))

    def to_model(self, labels_n: Tensor) -> Tensor:
        """Labels of targets as the model's loss wants them."""
        return labels_n if self.is_identity else labels_n.new_tensor(self.order)[labels_n]

    def select(self, class_logits_BAM: Tensor) -> Tensor:
        """(B, A, M) -> (B, A, K): the data set's classes in its order."""
        if self.is_identity:
            return class_logits_BAM
        return class_logits_BAM[..., torch.tensor(self.order, device=class_logits_BAM.device)]

    def from_model(self, labels_n: Tensor) -> tuple[Tensor, Tensor]:
        """(labels of the data set, mask of those that it has) of the model's detections."""
        if self.is_identity:
            return labels_n, torch.ones_like(labels_n, dtype=torch.bool)
        back = labels_n.new_full((self.num_model_classes,), -1)
        back[torch.tensor(self.order, device=labels_n.device)] = torch.arange(len(self.order), device=labels_n.device)
        found = back[labels_n]
        return found, found >= 0


def same_labels(num_classes: int) -> LabelMap:
    """The model's labels are the data set's."""
    return LabelMap(tuple(range(num_classes)), num_classes)
