"""mmcv with operators: compiled ones where they exist, AutoKD's otherwise. The same tests hold for both."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mmcv_ops():
    """The module ``mmcv.ops``; tests that need it skip where mmcv is absent."""
    from autokd.mmcv_ops import provide_mmcv_ops

    if provide_mmcv_ops() == "absent":
        pytest.skip("mmcv is not installed: pip install 'autokd[mmdet]'")
    import mmcv.ops

    return mmcv.ops


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
