"""Properties of random well-typed distillers."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autokd.distill import build_distiller
from autokd.distill.build import term_names
from autokd.errors import DistillError
from autokd.spec import Counts, DistillerSpec, unmet_needs
from tests.support import distill_cases as cases
from tests.support.random_terms import terms

NUM_CLASSES = 3
PYRAMIDS = st.sampled_from(
    [
        (cases.LEVELS, (96, 128)),
        ({"p3": ((13, 7), 8), "p4": ((7, 4), 16), "p5": ((1, 1), 64)}, (99, 53)),
        ({"p3": ((1, 5), 8)}, (8, 40)),
    ]
)
TARGETS = st.sampled_from([cases.TARGETS, cases.boxes([], [[0, 0, 9, 9]]), cases.boxes([], []), cases.TARGETS[:1]])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(terms(), min_size=1, max_size=3), PYRAMIDS, TARGETS, st.sampled_from([(4, 4), (3, 5)]), st.integers(0, 99)
)
def test_random_well_typed_distillers_give_a_finite_loss_and_gradient(specs, pyramid, targets, channels, seed):
    levels, size_px = pyramid
    student = cases.outputs(channels[0], len(targets), seed, levels, size_px, with_loss=True)
    teacher = cases.outputs(channels[1], len(targets), seed + 1, levels, size_px)
    spec = DistillerSpec(tuple(specs))
    try:
        distiller = build_distiller(spec, student=student, teacher=teacher, num_classes=NUM_CLASSES)
    except DistillError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:  # one class too few for a term, or nothing of the student's in what it compares
        needs = {
            name for name, term in zip(term_names(spec), spec.terms) if unmet_needs(term, Counts(classes=NUM_CLASSES))
        }
        assert (
            all(f"term {name}: " in refusal for name in needs) if needs else "does not depend on the student" in refusal
        )
        return
    for _ in range(2):
        result = distiller(student, teacher, targets)
        assert result.total.isfinite()
        assert all(value.raw >= -1e-5 and value.weight >= 0 for value in result.terms.values())
        gradients = torch.autograd.grad(
            result.total, [*student.pyramid.values(), *distiller.parameters()], retain_graph=True, allow_unused=True
        )
        assert all(found is None or found.isfinite().all() for found in gradients)
    assert len(result.terms) == len(spec.canonical().terms)
