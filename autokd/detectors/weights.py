"""Loading weights from a file into a detector: no code is run, and mismatches are named before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from autokd.detectors.contract import Detector
from autokd.detectors.weights_file import SHOWN, check_finite, read_state_dict, without_prefix
from autokd.errors import DetectorError, name_list

_OPTIONAL_SUFFIX = "num_batches_tracked"


def load_weights(detector: Detector, path: Path | str, *, new_head: bool = False) -> None:
    """Load a state dict into a detector's plain model.

    Args:
        detector: of any framework; unchanged if an error is raised.
        path: file with a state dict of the plain model, alone or under one of the usual keys (``model``,
            ``state_dict``, ``model_ema``, ...), beside which anything may lie; all names may begin with a prefix that a
            wrapper put there. It is read as data, so it cannot execute code.
        new_head: whether layers that depend on the classes keep the weights that they have, so that the file may be of
            other classes; of frameworks that know these layers.

    Raises:
        DetectorError: if the file cannot be read, does not fit, or holds NaN or infinity.
    """
    path = Path(path)
    expected = detector.model.state_dict()
    found = without_prefix(read_state_dict(path), expected, path)
    # Counters of batches decide nothing, and frozen norms have none.
    found = {name: value for name, value in found.items() if name in expected or not name.endswith(_OPTIONAL_SUFFIX)}
    found = detector.translated(found, path, new_head=new_head)
    problems = _misfits(found, expected)
    if problems:
        raise DetectorError(
            f"{path}: the weights do not fit this {detector.architecture} of {detector.num_classes} classes: "
            f"{'; '.join(problems)}. {detector.misfit_advice(found)}"
        )
    check_finite(found, path)
    detector.model.load_state_dict(found, strict=False)


def _misfits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in expected if name not in found and not name.endswith(_OPTIONAL_SUFFIX)]
    unexpected = [name for name in found if name not in expected]
    misshapen = [
        f"{name}: {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    return [
        f"{len(names)} {kind} ({name_list(names, limit=SHOWN)})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
