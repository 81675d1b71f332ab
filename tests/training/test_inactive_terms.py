"""A distiller of which nothing could be measured: its training is that of "none", and its outcome says so."""

from __future__ import annotations

import logging

import pytest
import torch

from autokd.jobs import Job, WorkerResources
from autokd.presets import load_preset
from autokd.spec import DistillerSpec, Step, TermSpec, Weight
from autokd.training import TrainingEvaluatorFactory


@pytest.fixture
def run_proxy(make_tiny_config, tiny_data, tiny_cache, tmp_path, run_job):
    def run(spec):
        evaluator = TrainingEvaluatorFactory(make_tiny_config(), tiny_cache, tmp_path / "run", tiny_data)
        return run_job(evaluator(WorkerResources()), Job("t", spec, "proxy"))[1]

    return run


def test_a_training_without_an_active_term_is_that_of_none_and_says_so(run_proxy, monkeypatch, caplog):
    """Rounding is declared of every gradient: the guards themselves are tested in tests/distill."""
    none = run_proxy(None)
    monkeypatch.setattr(
        "autokd.distill.weighting.balance.is_rounding", lambda value, *_: torch.ones_like(value, dtype=torch.bool)
    )
    with caplog.at_level(logging.WARNING):
        outcome = run_proxy(load_preset("pkd").with_gradient_ratio(20))
    assert outcome.status == "finished"
    assert outcome.is_inactive
    assert len(outcome.inactive_terms) == 1
    assert "term inactive: " + outcome.inactive_terms[0] in caplog.text
    assert outcome.metrics["val_loss"] == none.metrics["val_loss"]


def test_an_active_distiller_has_no_inactive_term(run_proxy):
    terms = (
        TermSpec(Step.of("feature_map"), (), Step.of("l2"), Weight("relative", 5.0)),
        TermSpec(Step.of("foreground"), (), Step.of("l1"), Weight("absolute", 1.0)),
    )
    outcome = run_proxy(DistillerSpec(terms))
    assert not outcome.is_inactive
    assert outcome.inactive_terms == ()
