"""A space that stands one level too high is no default space."""

from __future__ import annotations

import pytest

from autokd.config import load_space
from autokd.errors import ConfigError


def test_the_keys_of_a_space_belong_under_space():
    with pytest.raises(ConfigError, match=r"1: sources: key 'sources' is not one of .*space"):
        load_space("sources: [feature_map]\ndistances: [l2]\n")
    assert (
        len(
            load_space("space: {terms: 1, sources: [feature_map], distances: [l2], gradient_ratio: [10]}")
            .slots[0]
            .options
        )
        == 1
    )
