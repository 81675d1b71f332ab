"""The file of a portfolio: where it came from, and each distiller with its gains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autokd.documents import Document, Location, dump_yaml, load_document
from autokd.errors import SpaceError, SpecError
from autokd.portfolio.greedy import greedy_order
from autokd.presets import preset_names
from autokd.space import PUBLISHED, PartSpace, Summand
from autokd.spec.terms import SCHEDULES

SCHEMA = 1
_SHIPPED = Path(__file__).parent / "portfolio.yaml"
_KEYS = ("schema", "made_by", "pairs", "distillers")
_DISTILLER_KEYS = ("parts", "gain")
_PART_KEYS = ("part", "strength", "schedule")


@dataclass(frozen=True)
class PortfolioRecord:
    """A recorded distiller.

    Args:
        summands: its parts.
        gains: name of a pair -> gain over no distillation in val AP on it, in [-1, 1], shrunken for its noise.
    """

    summands: tuple[Summand, ...]
    gains: Mapping[str, float]

    @property
    def name(self) -> str:
        """A name for people, such as "g_detkd_sgfi x10 + fitnet x10 linear_decay"."""
        return " + ".join(map(_words, self.summands))


@dataclass(frozen=True)
class Portfolio:
    """Recorded distillers.

    Args:
        records: the distillers.
        pairs: name of each recorded pair -> where its numbers are from.
        made_by: the command that made it.
    """

    records: tuple[PortfolioRecord, ...]
    pairs: Mapping[str, str] = field(default_factory=dict)
    made_by: str = ""

    def without(self, pairs: Iterable[str]) -> Portfolio:
        """Return the portfolio as it would be without some pairs.

        Args:
            pairs: names of the pairs that are left out.

        Raises:
            SpaceError: if a name is none of its pairs.
        """
        left_out = set(pairs)
        if unknown := sorted(left_out - set(self.pairs)):
            raise SpaceError(
                f"search.portfolio_without: {', '.join(unknown)}: the portfolio was made from "
                f"{', '.join(self.pairs) or 'nothing'}. Name one of these."
            )
        kept = (
            replace(each, gains={pair: gain for pair, gain in each.gains.items() if pair not in left_out})
            for each in self.records
        )
        pairs_left = {name: origin for name, origin in self.pairs.items() if name not in left_out}
        return replace(self, records=tuple(each for each in kept if each.gains), pairs=pairs_left)

    def joined(self, pair: str, origin: str, records: Iterable[PortfolioRecord]) -> Portfolio:
        """Return the portfolio with the records of one more pair.

        Args:
            pair: its name.
            origin: where its numbers are from.
            records: distillers with their gain on it.
        """
        gains = {each.summands: dict(each.gains) for each in self.records}
        for each in records:
            gains.setdefault(each.summands, {}).update(each.gains)
        merged = tuple(PortfolioRecord(summands, found) for summands, found in gains.items())
        return replace(self, records=merged, pairs={**self.pairs, pair: origin})

    def queue(self, space: PartSpace) -> list[PortfolioRecord]:
        """Return the distillers that a space offers, in the order in which a search should try them.

        Args:
            space: the part of the space that a pair supplies.
        """
        offered = [each for each in self.records if _is_offered(space, each)]
        return [offered[i] for i in greedy_order([each.gains for each in offered])]


def load_portfolio(path: Path | None = None) -> Portfolio:
    """Read a portfolio.

    Args:
        path: its file; None: the one that AutoKD ships.

    Raises:
        ConfigError: if the file is absent or no YAML.
        SpecError: with file and line, if it is no portfolio.
    """
    document = load_document(path or _SHIPPED)
    data = document.data
    _check_keys(data, _KEYS, document, ())
    if data.get("schema") != SCHEMA:
        raise document.error(
            ("schema",), f"found {data.get('schema')!r}; this version of AutoKD reads schema {SCHEMA}.", SpecError
        )
    pairs, distillers = data.get("pairs") or {}, data.get("distillers")
    if not isinstance(pairs, dict) or not isinstance(distillers, list):
        raise document.error((), "a portfolio has 'pairs', a mapping, and 'distillers', a list.", SpecError)
    records = tuple(_record(item, document, ("distillers", i)) for i, item in enumerate(distillers))
    return Portfolio(records, {str(k): str(v) for k, v in pairs.items()}, str(data.get("made_by") or ""))


def portfolio_text(portfolio: Portfolio) -> str:
    """Return the text of a portfolio's file: its distillers in the order of the queue, those that lose behind them.

    Args:
        portfolio: the portfolio.
    """
    records = portfolio.records
    order = greedy_order([each.gains for each in records])
    rest = [i for i in range(len(records)) if i not in order]
    head = (
        f"# Distillers that were best over {len(portfolio.pairs)} recorded pairs, and what each gained over no\n"
        "# distillation in val AP, shrunken for the noise of its seeds. Made by `autokd benchmark portfolio`; do not\n"
        "# edit. The order is that of the queue: each covers pairs that those before it do not.\n"
    )
    data = {
        "schema": SCHEMA,
        "made_by": portfolio.made_by,
        "pairs": dict(portfolio.pairs),
        "distillers": [_record_data(records[i]) for i in order + rest],
    }
    return head + dump_yaml(data)


def _is_offered(space: PartSpace, record: PortfolioRecord) -> bool:
    if not space.min_parts <= len(record.summands) <= space.max_parts:
        return False
    for each in record.summands:
        part = space.part(each.part)
        known = part is not None or each.term is not None
        if not known or each.schedule not in space.schedules_of(part) or each.strength not in space.strengths:
            return False
    return True


def _words(summand: Summand) -> str:
    strength = "" if summand.strength == 1 else f" x{summand.strength:.3g}"
    return f"{summand.part}{strength}" + ("" if summand.schedule == "constant" else f" {summand.schedule}")


def _record_data(record: PortfolioRecord) -> dict[str, Any]:
    parts = []
    for each in record.summands:
        data: dict[str, Any] = {"part": each.part, "strength": each.strength}
        parts.append(data if each.schedule == "constant" else data | {"schedule": each.schedule})
    return {"parts": parts, "gain": {pair: round(gain, 5) for pair, gain in sorted(record.gains.items())}}


def _record(data: Any, document: Document, place: Location) -> PortfolioRecord:
    _check_keys(data, _DISTILLER_KEYS, document, place)
    parts, gains = data.get("parts"), data.get("gain")
    if not isinstance(parts, list) or not parts or not isinstance(gains, dict):
        raise document.error(place, "a distiller has 'parts', a list, and 'gain', a mapping.", SpecError)
    for pair, gain in gains.items():
        if isinstance(gain, bool) or not isinstance(gain, (int, float)) or not math.isfinite(gain):
            raise document.error((*place, "gain", pair), f"found {gain!r}; write a number.", SpecError)
    found = tuple(_summand(part, document, (*place, "parts", i)) for i, part in enumerate(parts))
    return PortfolioRecord(found, {str(pair): float(gain) for pair, gain in gains.items()})


def _summand(data: Any, document: Document, place: Location) -> Summand:
    _check_keys(data, _PART_KEYS, document, place)
    part, strength = data.get("part"), data.get("strength", 1)
    if not isinstance(part, str) or part.removesuffix(PUBLISHED) not in preset_names():
        raise document.error((*place, "part"), f"found {part!r}, which is no preset.", SpecError)
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 < strength < math.inf:
        raise document.error((*place, "strength"), f"found {strength!r}; write a number above 0.", SpecError)
    schedule = data.get("schedule", "constant")
    if schedule not in SCHEDULES or schedule == "off_after":
        raise document.error((*place, "schedule"), f"found {schedule!r}, which is no schedule of a part.", SpecError)
    return Summand(part, float(strength), schedule)


def _check_keys(data: Any, allowed: Sequence[str], document: Document, place: Location) -> None:
    if not isinstance(data, dict) or not set(data) <= set(allowed):
        raise document.error(place, f"found {data!r:.200}; write a mapping with {', '.join(allowed)}.", SpecError)
