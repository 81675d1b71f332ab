"""Every preset equals independent NumPy code in value and gradient, in float64.

The code of ``tests/distill/peers`` is written from papers and public releases. What it expects is computed once, by
``python -m tests.distill.peers.make``, and stored with its source. Each row here is compared with the stored numbers,
and these with the code beside them: losses are computed again, and the slope along a random direction, which holds all
derivatives and not only the stored ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from autokd.distill import Distiller, build_distiller
from autokd.distill.transforms import learned_blocks
from autokd.distill.transforms import masks as random_masks
from autokd.presets import families_of, load_preset, preset_names
from tests.distill.peers import make
from tests.distill.peers.batches import NUM_CLASSES
from tests.distill.peers.cases import NUM_EPOCHS, PEERS, STEPS_PER_EPOCH, Peer
from tests.distill.peers.complex_step import Array
from tests.support.peer_outputs import DrawnMasks, give_learned_weights, outputs_of, targets_of

TOLERANCE, OF_FLOAT32 = 1e-9, 1e-7
IN_BOXES = ("fgd", "detkds", "global_knowledge", "global_knowledge_labels")
"""Presets that weigh the cells of boxes: such weights are float32 whatever the maps are."""
OF_ALL_PEERS = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)


@cache
def expected() -> Mapping[str, Array]:
    with np.load(make.EXPECTED) as stored:
        return dict(stored)


def built(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Distiller:
    """The preset in float64, with the peers' weights and masks."""
    pair = [outputs_of(peer.steps[0], side, torch.float32)[0] for side in ("student", "teacher")]
    spec = load_preset(peer.preset, None if peer.family == "any" else peer.family)
    distiller = build_distiller(spec, *pair, NUM_CLASSES).double()
    give_learned_weights(distiller)
    # A weight such as 5e-4 is rounded to float32 when the distiller is built.
    distiller._absolute = torch.tensor([term.weight.value for term in distiller.spec.terms], dtype=torch.float64)
    masks = DrawnMasks(distiller)
    for module in (learned_blocks, random_masks):
        monkeypatch.setattr(module, "draw_kept", masks)
    return distiller


def shown(peer: Peer, distiller: Distiller) -> tuple[list[float], dict[str, Tensor]]:
    """Return each step's loss, and the gradients of the last one."""
    values = []
    for step, batch in enumerate(peer.steps):
        if peer.begins_epochs and step % STEPS_PER_EPOCH == 0:
            distiller.begin_epoch(step // STEPS_PER_EPOCH + 1, NUM_EPOCHS, STEPS_PER_EPOCH)
        student, leaves = outputs_of(batch, "student")
        teacher, leaves_of_teacher = outputs_of(batch, "teacher")
        total = distiller(student, teacher, targets_of(batch)).total
        assert total.dtype == torch.float64
        values.append(total.item())
    total.backward()
    assert all(leaf.grad is None for leaf in leaves_of_teacher.values())
    others = {name for name, leaf in leaves.items() if leaf.grad is not None and leaf.grad.any()} - set(peer.leaves)
    assert not others, "the loss depends on more than is compared"
    return values, {name: leaves[name].grad for name in peer.leaves}


@OF_ALL_PEERS
def test_value_and_gradient_equal_the_peers(peer, monkeypatch):
    values, gradients = shown(peer, built(peer, monkeypatch))
    tolerance = OF_FLOAT32 if peer.preset in IN_BOXES else TOLERANCE
    np.testing.assert_allclose(values, expected()[f"{peer.name}:values"], rtol=tolerance)
    wanted = {leaf: expected()[f"{peer.name}:{leaf}"] for leaf in peer.leaves}
    greatest = max(np.abs(gradient).max() for gradient in wanted.values())
    assert greatest > 0
    for leaf, gradient in wanted.items():
        found = gradients[leaf].flatten().numpy()[make.places(peer, leaf)]
        np.testing.assert_allclose(found, gradient, rtol=tolerance, atol=tolerance * greatest, err_msg=leaf)
    along = make.direction(peer)
    slope = sum(float((gradients[leaf].numpy() * along[leaf]).sum()) for leaf in peer.leaves)
    size = np.sqrt(sum(float(gradients[leaf].square().sum()) for leaf in peer.leaves))
    assert slope == pytest.approx(expected()[f"{peer.name}:slope"].item(), rel=tolerance, abs=tolerance * size)


@OF_ALL_PEERS
def test_stored_numbers_are_those_of_the_code_beside_them(peer):
    np.testing.assert_allclose(peer.values(), expected()[f"{peer.name}:values"], rtol=1e-12)
    assert make.slope(peer) == pytest.approx(expected()[f"{peer.name}:slope"].item(), rel=1e-11)


def test_every_preset_and_family_has_a_stored_expectation_with_a_source():
    wanted = {(name, family) for name in preset_names() for family in families_of(name)}
    assert {(peer.preset, peer.family) for peer in PEERS} == wanted
    names = [peer.name for peer in PEERS]
    assert len(set(names)) == len(names)
    assert set(expected()) == {f"{p.name}:{key}" for p in PEERS for key in ("values", "slope", *p.leaves)}
    sources = json.loads(make.SOURCES.read_text())
    assert {name: row["source"] for name, row in sources.items()} == {peer.name: peer.source for peer in PEERS}
    assert all(row["date"] and row["numpy"] for row in sources.values())
