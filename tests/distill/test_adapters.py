"""The two adapters of the student's maps: where each is made, what it starts as, and that terms share their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autokd.distill import build_distiller
from autokd.errors import SpecError
from autokd.spec import DistillerSpec, Step, TermSpec, Weight, formula, formula_lines
from tests.support import distill_cases as cases


def term(adapter: str, source: str = "feature_map", distance: str = "l2") -> TermSpec:
    return TermSpec(Step.of(source), (), Step.of(distance), Weight("absolute", 1.0), adapter=adapter)


def built(*terms: TermSpec, channels: int = 4):
    student, teacher = cases.outputs(channels), cases.outputs(6, seed=1)
    return build_distiller(DistillerSpec(terms), student, teacher, cases.NUM_CLASSES), student, teacher


def test_terms_of_different_adapters_have_their_own_and_terms_of_equal_ones_share_them():
    distiller, student, teacher = built(term("linear"), term("mlp"), term("mlp", "foreground", "l1"))
    computed: list[object] = []
    distiller.observer = computed.append
    result = distiller(student, teacher, cases.TARGETS)
    maps = [key for key in computed if key[0] == "maps"]
    assert sorted(maps) == sorted(("maps", level, kind) for kind in ("linear", "mlp") for level in range(3))
    values = [value.raw.item() for value in result.terms.values()]
    by_hand = []
    for adapters in (distiller.adapters, distiller.mlp_adapters):
        maps = zip(adapters, student.pyramid.values(), teacher.pyramid.values())
        by_hand.append(sum((adapter(s) - t).square().mean().item() for adapter, s, t in maps))
    assert len(values) == 3
    assert all(any(abs(value - want) < 1e-4 for value in values) for want in by_hand)
    result.total.backward()
    assert all(parameter.grad is not None for parameter in distiller.parameters())


def test_an_adapter_that_no_term_asks_for_is_not_made():
    linear, *_ = built(term("linear"))
    assert linear.mlp_adapters is None
    assert {"adapters.0.weight", "adapters.0.bias"} <= set(linear.state_dict())
    mlp, *_ = built(term("mlp"))
    assert len(mlp.adapters) == 0
    assert len(mlp.mlp_adapters) == 3


def test_an_mlp_is_two_layers_also_where_channels_agree_and_keeps_the_size_of_what_passes():
    distiller, *_ = built(term("mlp"), channels=6)
    assert all(isinstance(layer, kind) for adapter in distiller.mlp_adapters
               for layer, kind in zip(adapter, (nn.Conv2d, nn.ReLU, nn.Conv2d), strict=True))  # fmt: skip
    wide = build_distiller(
        DistillerSpec((term("mlp"),)), cases.outputs(256), cases.outputs(256, seed=1), cases.NUM_CLASSES
    )
    noise = torch.randn(4, 256, 16, 16, generator=torch.Generator().manual_seed(0))
    for adapter in wide.mlp_adapters:
        assert 0.8 < adapter(noise).square().mean().item() < 1.2


def test_adapters_start_equal_whatever_was_drawn_before():
    one, *_ = built(term("mlp"))
    torch.rand(7)
    other, *_ = built(term("mlp"), term("linear"))
    for first, second in zip(one.mlp_adapters.parameters(), other.mlp_adapters.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_linear_adapter_stays_out_of_the_text_and_the_digest():
    linear, mlp = DistillerSpec((term("linear"),)), DistillerSpec((term("mlp"),))
    assert "adapter" not in linear.to_yaml()
    assert mlp.to_data()["terms"][0]["adapter"] == "mlp"
    assert linear.digest != mlp.digest
    assert DistillerSpec.from_yaml(mlp.to_yaml()) == mlp
    assert DistillerSpec((*linear.terms, *mlp.terms)).canonical().terms == (*linear.terms, *mlp.terms)
    assert formula(mlp) == "1 * l2(mlp(F))"
    assert any("two 1x1 convolutions" in line for line in formula_lines(mlp))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("adapter: mpl", "'mpl' is not one of linear, mlp. Did you mean 'mlp'?"),
        ("adapter: [mlp]", "is not one of linear, mlp"),
    ],
)
def test_an_unknown_adapter_is_refused_with_its_place(line, words):
    text = f"terms:\n- source: feature_map\n  distance: l2\n  weight: {{absolute: 1}}\n  {line}\n"
    with pytest.raises(SpecError) as caught:
        DistillerSpec.from_yaml(text)
    assert words in str(caught.value)
    assert "terms[0].adapter" in str(caught.value)


def test_an_adapter_of_a_source_without_paired_maps_is_refused():
    with pytest.raises(SpecError, match="source 'class_logits' compares no maps of paired levels"):
        DistillerSpec((term("mlp", "class_logits"),)).canonical()
