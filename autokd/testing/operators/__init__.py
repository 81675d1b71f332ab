"""The conformance suite over rows of the vocabulary: what every operator must keep, whatever it computes.

A package that offers operators runs it over its own rows, with any test runner:

    import pytest
    from autokd.testing.operators import operator_checks
    from my_package.operators import ROWS

    @pytest.mark.parametrize("check", operator_checks(ROWS), ids=str)
    def test_my_operators_conform(check):
        check()

The rows need not be installed as an entry point: a check registers them while it runs. ``samples`` has small outputs
of detectors, feature pairs and targets for tests of an operator's own formula.
"""

from autokd.testing.operators.suite import Check, operator_checks

__all__ = ["Check", "operator_checks"]
