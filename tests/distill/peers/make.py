"""Compute and store what the peers expect: ``python -m tests.distill.peers.make`` (a few minutes on one core).

``expected.npz`` holds, by the name of a row of ``cases.PEERS``: ``NAME:values``, the losses of its steps;
``NAME:slope``, the derivative of the last one along ``direction``; ``NAME:LEAF``, its partial derivatives at the places
that ``places`` draws. ``expected.json`` holds each row's source, and date and NumPy version of the computation.

Derivatives are complex steps of 1e-40 in float64, exact to rounding (``complex_step``). Before anything is stored they
are compared with central differences of 1e-6 along ``direction``, whose error is about 1e-8: a function that is not
analytic where it should be shows there.
"""

from __future__ import annotations

import json
import sys
import zlib
from datetime import date
from pathlib import Path

import numpy as np

from tests.distill.peers.cases import PEERS, Peer
from tests.distill.peers.complex_step import Array, central_difference, derivative, partial_derivatives

EXPECTED = Path(__file__).with_name("expected.npz")
SOURCES = Path(__file__).with_name("expected.json")
MOST_PLACES = 40
_DIFFERENCE = 1e-6


def places(peer: Peer, leaf: str) -> Array:
    """Return the indices of a leaf's numbers whose derivatives are stored: all, or as many as drawn by its name."""
    size = peer.steps[-1].student[leaf].size
    random = np.random.default_rng(zlib.crc32(f"{peer.name}:{leaf}".encode()))
    return np.sort(random.choice(size, min(size, MOST_PLACES), replace=False))


def direction(peer: Peer) -> dict[str, Array]:
    """Return a random direction in all that a row is differentiated by."""
    random = np.random.default_rng(zlib.crc32(peer.name.encode()))
    return {leaf: random.normal(size=peer.steps[-1].student[leaf].shape) for leaf in peer.leaves}


def slope(peer: Peer) -> float:
    """Return the exact derivative of the last step's loss along ``direction``."""
    return derivative(peer.of_last_step, peer.steps[-1].student, direction(peer))


def _check(peer: Peer) -> None:
    student = peer.steps[-1].student
    found = central_difference(peer.of_last_step, student, direction(peer), _DIFFERENCE)
    if not np.isclose(found, slope(peer), rtol=1e-5, atol=1e-7):
        raise SystemExit(f"{peer.name}: central difference {found}, complex step {slope(peer)}")


def main(only: tuple[str, ...] = ()) -> None:
    """Compute every row; or those whose names begin with one of ``only``, without storing."""
    stored: dict[str, Array] = {}
    for peer in PEERS:
        if only and not peer.name.startswith(only):
            continue
        _check(peer)
        stored[f"{peer.name}:values"] = peer.values()
        stored[f"{peer.name}:slope"] = np.array(slope(peer))
        for leaf in peer.leaves:
            found = partial_derivatives(peer.of_last_step, peer.steps[-1].student, leaf, places(peer, leaf))
            stored[f"{peer.name}:{leaf}"] = found
        print(f"{peer.name}: {stored[f'{peer.name}:values']}", flush=True)
    if only:
        return
    np.savez_compressed(EXPECTED, **stored)
    store_sources()


def store_sources() -> None:
    """Write each row's source, with today's date."""
    made = {"date": date.today().isoformat(), "numpy": np.__version__}
    sources = {peer.name: {"source": peer.source} | made for peer in PEERS}
    SOURCES.write_text(json.dumps(sources, indent=1) + "\n")


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
