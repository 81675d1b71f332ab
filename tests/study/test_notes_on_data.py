"""What a run's results say about its data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autokd.config import TorchvisionDetector
from autokd.study import finish


def _notes(**datasets: Any) -> str:
    config = SimpleNamespace(
        teachers=(1,),
        student=TorchvisionDetector(),
        search=SimpleNamespace(promote_after=None),
        full=SimpleNamespace(baseline_gradient_ratio=40.0, seeds=(0,)),
    )
    data = SimpleNamespace(**{"test_is_val": False, "shared_images": (), **datasets})
    run: Any = SimpleNamespace(config=config, datasets=data)
    return " ".join(finish._notes(run, SimpleNamespace(distillers=())))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("datasets", "expected"),
    [
        ({"test_is_val": True}, "test AP was measured on val"),
        ({"shared_images": ("val and test share 3 images",)}, "val and test share 3 images"),
    ],
)
def test_splits_that_are_not_apart_are_noted(datasets: dict[str, Any], expected: str) -> None:
    assert expected in _notes(**datasets)
    assert expected not in _notes()
