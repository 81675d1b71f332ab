"""The text of a distiller: terms as YAML and as plain data.

schema: 2
name: cwd
terms:
- source: feature_map                       # or {instance: {size: 7}}
  transforms: [{softmax_cells: {temperature: 1.0}}]
  distance: kl
  weight: {relative: 40}              # or {absolute: 10}, {share: 0.2}; also schedule, level_weighting
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from autokd.documents import Document, Location
from autokd.errors import SpecError, one_of
from autokd.spec.operator import Kind, Number
from autokd.spec.terms import WEIGHT_KINDS, Step, TermSpec, Weight
from autokd.spec.vocabulary import IDENTITY

SCHEMA = 2
"""Version of the format of a distiller's YAML file; raised if old files need a translation."""
_SPEC_KEYS = ("schema", "name", "paper", "terms")
_TERM_KEYS = ("source", "transforms", "distance", "weight")


def parse_step(value: Any, kind: Kind, document: Document, location: Location) -> Step:
    """Read a step, ``name`` or ``{name: {parameter: number}}``.

    Args:
        value: the plain data.
        kind: the kind of operator that is allowed here.
        document, location: where ``value`` is written, for errors.

    Returns:
        The step as written: a parameter that is left out stays left out.

    Raises:
        SpecError: with file and line, if it is neither, or the operator or a parameter does not exist.
    """
    if isinstance(value, str):
        name, params = value, dict[str, Any]()
    elif isinstance(value, dict) and len(value) == 1:
        [(name, params)] = value.items()
        params = {} if params is None else params
    else:
        raise document.error(
            location,
            f"found {value!r}; write a {kind}'s name, or {{name: {{parameter: number}}}}.",
            SpecError,
        )
    if not isinstance(params, dict):
        raise document.error(location, f"the parameters of {name!r} are {params!r}; write {{name: number}}.", SpecError)
    step = Step.of(name, **cast("dict[str, Number]", params))
    if kind == "transform" and name == IDENTITY and not params:
        return step
    try:
        step.checked(kind)
    except SpecError as error:
        raise document.error(location, str(error), SpecError) from None
    return step


class WrittenDistiller(NamedTuple):
    """The content of a distiller's file, before it becomes a ``DistillerSpec``."""

    terms: tuple[TermSpec, ...]
    name: str
    paper: str


def distiller_from_document(document: Document) -> WrittenDistiller:
    """Read a whole distiller.

    Args:
        document: a mapping with ``terms`` and, optionally, ``schema``, ``name`` and ``paper``.

    Returns:
        The terms as written (not canonical), the name and the paper; "" if there is none.

    Raises:
        SpecError: naming file, line and place, if anything in it is not allowed.
    """
    data = document.data
    if not isinstance(data, dict):
        raise document.error((), "a distiller is a mapping with the key 'terms'.", SpecError)
    _refuse_unknown(data, _SPEC_KEYS, document, ())
    if data.get("schema", SCHEMA) != SCHEMA:
        raise document.error(
            ("schema",),
            f"found {data['schema']!r}; this version of AutoKD reads schema {SCHEMA}. Operators and keys had other "
            "names before: replace them by the table 'Names before schema 2' of docs/glossary.md, and set "
            f"'schema: {SCHEMA}'.",
            SpecError,
        )
    terms = data.get("terms")
    if not isinstance(terms, list) or not terms:
        raise document.error(("terms",), f"found {terms!r}; a distiller has a list of one or more terms.", SpecError)
    parsed = tuple(_term(term, document, ("terms", i)) for i, term in enumerate(terms))
    for i, term in enumerate(parsed):
        try:
            term.canonical()
        except SpecError as error:
            raise document.error(("terms", i), str(error), SpecError) from None
    return WrittenDistiller(parsed, str(data.get("name") or ""), str(data.get("paper") or ""))


def distiller_to_data(terms: Sequence[TermSpec], name: str = "", paper: str = "") -> dict[str, Any]:
    """Return what a distiller's file holds, as plain data; empty labels are left out."""
    labels = {key: text for key, text in (("name", name), ("paper", paper)) if text}
    return {"schema": SCHEMA, **labels, "terms": [_term_data(term) for term in terms]}


def _term(data: Any, document: Document, location: Location) -> TermSpec:
    if not isinstance(data, dict):
        raise document.error(location, f"found {data!r}; a term has {', '.join(_TERM_KEYS)}.", SpecError)
    _refuse_unknown(data, _TERM_KEYS, document, location)
    for key in ("source", "distance", "weight"):
        if key not in data:
            raise document.error(location, f"the term has no '{key}'. A term has {', '.join(_TERM_KEYS)}.", SpecError)
    transforms = data.get("transforms") or []
    if not isinstance(transforms, list):
        raise document.error((*location, "transforms"), f"found {transforms!r}; write a list of steps.", SpecError)
    return TermSpec(
        parse_step(data["source"], "source", document, (*location, "source")),
        tuple(
            parse_step(step, "transform", document, (*location, "transforms", i)) for i, step in enumerate(transforms)
        ),
        parse_step(data["distance"], "distance", document, (*location, "distance")),
        _weight(data["weight"], document, (*location, "weight")),
    )


def _weight(data: Any, document: Document, location: Location) -> Weight:
    kinds = [key for key in data if key in WEIGHT_KINDS] if isinstance(data, dict) else []
    if len(kinds) != 1:
        raise document.error(
            location, f"found {data!r}; write {{relative: ratio}}, {{absolute: factor}} or {{share: part}}.", SpecError
        )
    _refuse_unknown(data, (*WEIGHT_KINDS, "schedule", "level_weighting"), document, location)
    others = {key: value for key, value in data.items() if key not in kinds}
    try:
        return Weight(kinds[0], data[kinds[0]], **others)
    except SpecError as error:
        raise document.error(location, str(error), SpecError) from None


def _refuse_unknown(data: dict[str, Any], allowed: tuple[str, ...], document: Document, location: Location) -> None:
    for key in data:
        if key not in allowed:
            raise document.error((*location, key), one_of(key, allowed, noun="key"), SpecError)


def _step_data(step: Step) -> str | dict[str, dict[str, Number]]:
    return {step.name: dict(step.params)} if step.params else step.name


def _term_data(term: TermSpec) -> dict[str, Any]:
    return {
        "source": _step_data(term.source),
        "transforms": [_step_data(step) for step in term.transforms],
        "distance": _step_data(term.distance),
        "weight": _weight_data(term.weight),
    }


def _weight_data(weight: Weight) -> dict[str, Any]:
    """Defaults are left out: a key that is added later then changes no digest of a distiller without it."""
    data: dict[str, Any] = {weight.kind: weight.value}
    if weight.schedule != "constant":
        data["schedule"] = weight.schedule
    if weight.level_weighting != "equal":
        data["level_weighting"] = weight.level_weighting
    return data


__all__ = ["SCHEMA", "WrittenDistiller", "distiller_from_document", "distiller_to_data", "parse_step"]
