"""The text of a distiller: terms as YAML and as plain data.

schema: 2
name: cwd
terms:
- source: feature_map                       # or {instance: {size: 7}}
  transforms: [{softmax_cells: {temperature: 1.0}}]
  distance: kl
  weight: {relative: 40}              # or {absolute: 10}, {share: 0.2}; also schedule, level_weighting
  levels: coarsest                    # optional; or finest, or names of the student's levels: [p3, p4]
  adapter: mlp                        # of the student's maps; left out: linear

A distiller that was published with other terms or weights for other detectors has ``families`` in place of ``terms``:

families:                             # the first one is the default if nothing is known
  anchor_based: {release: "configs/retinanet.py", terms: [...]}
  two_stage: {release: "configs/faster_rcnn.py", terms: [...]}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from autokd.documents import Document, Location
from autokd.errors import SpecError, one_of
from autokd.spec.families import ANY_FAMILY, DETECTOR_FAMILIES, chosen_family
from autokd.spec.operator import Kind, Number
from autokd.spec.terms import ADAPTERS, ALL_LEVELS, WEIGHT_KINDS, Levels, Step, TermSpec, Weight, wrong_levels
from autokd.spec.vocabulary import IDENTITY

SCHEMA = 2
"""Version of the format of a distiller's YAML file; raised if old files need a translation."""
_SPEC_KEYS = ("schema", "name", "paper", "release", "family", "terms", "families")
_FAMILY_KEYS = ("release", "terms")
_TERM_KEYS = ("source", "transforms", "distance", "weight", "levels", "adapter")


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
    family: str
    release: str


def distiller_from_document(document: Document, family: str | None = None) -> WrittenDistiller:
    """Read a whole distiller.

    Args:
        document: a mapping with ``terms`` or ``families`` and, optionally, ``schema`` and labels.
        family: the family of detectors that the distiller is for (``DETECTOR_FAMILIES``); None, or a family for which
            the file has no terms of its own: its default.

    Returns:
        The terms as written (not canonical), and the labels; "" for those that are not there.

    Raises:
        SpecError: naming file, line and place, if anything in it is not allowed, in any family's terms.
    """
    data = _checked_mapping(document)
    name, paper, release = (_text(data, key, document, (key,)) for key in ("name", "paper", "release"))
    if "families" not in data:
        return WrittenDistiller(_terms(data, document, ()), name, paper, _label(data, document), release)
    by_family = _by_family(data, document)
    chosen = chosen_family(tuple(by_family), family)
    own, own_release = by_family[chosen]
    return WrittenDistiller(own, name, paper, chosen, own_release or release)


def families_of_document(document: Document) -> tuple[str, ...]:
    """Return the families of detectors for which a distiller's file has terms of their own, in its order.

    Args:
        document: a mapping as ``distiller_from_document`` takes it.

    Returns:
        Names of families; the file's label alone, or nothing, if it has the same terms for all detectors.

    Raises:
        SpecError: naming file, line and place, if it is no distiller.
    """
    data = _checked_mapping(document)
    if "families" in data:
        return tuple(_by_family(data, document))
    label = _label(data, document)
    return (label,) if label else ()


def distiller_to_data(
    terms: Sequence[TermSpec], name: str = "", paper: str = "", family: str = "", release: str = ""
) -> dict[str, Any]:
    """Return what a distiller's file holds, as plain data; empty labels are left out."""
    written = (("name", name), ("paper", paper), ("release", release), ("family", family))
    labels = {key: text for key, text in written if text}
    return {"schema": SCHEMA, **labels, "terms": [_term_data(term) for term in terms]}


def _checked_mapping(document: Document) -> dict[str, Any]:
    """Return the document's mapping; SpecError if it is none, has other keys, or is of another schema."""
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
    return data


def _label(data: dict[str, Any], document: Document) -> str:
    """Return the label ``family`` of a file with one list of terms."""
    label = data.get("family") or ""
    allowed = (ANY_FAMILY, *DETECTOR_FAMILIES)
    if label and label not in allowed:
        raise document.error(("family",), one_of(label, allowed, noun="family of detectors"), SpecError)
    return str(label)


def _text(data: dict[str, Any], key: str, document: Document, location: Location) -> str:
    """Return a label of a distiller; empty if it is not there."""
    label = data.get(key)
    if label is None:
        return ""
    if not isinstance(label, (str, int, float)) or isinstance(label, bool):
        raise document.error(location, f"found {label!r}; write one text.", SpecError)
    return str(label)


def _by_family(data: dict[str, Any], document: Document) -> dict[str, tuple[tuple[TermSpec, ...], str]]:
    """Return family -> (its terms, its release), in the file's order; every family is read, so that errors show."""
    for key in ("terms", "family"):
        if key in data:
            raise document.error((key,), f"'{key}' and 'families' exclude each other. Drop '{key}'.", SpecError)
    families = data["families"]
    if not isinstance(families, dict) or not families:
        raise document.error(
            ("families",),
            f"found {families!r}; write {{FAMILY: {{terms: [...]}}}} with {', '.join(DETECTOR_FAMILIES)}.",
            SpecError,
        )
    _refuse_unknown(families, DETECTOR_FAMILIES, document, ("families",))
    read = {}
    for family, part in families.items():
        place: Location = ("families", family)
        if not isinstance(part, dict):
            raise document.error(place, f"found {part!r}; a family has {', '.join(_FAMILY_KEYS)}.", SpecError)
        _refuse_unknown(part, _FAMILY_KEYS, document, place)
        read[str(family)] = _terms(part, document, place), _text(part, "release", document, (*place, "release"))
    return read


def _terms(data: dict[str, Any], document: Document, location: Location) -> tuple[TermSpec, ...]:
    """Return the list ``terms`` of a distiller or of one of its families, each term checked."""
    place: Location = (*location, "terms")
    terms = data.get("terms")
    if not isinstance(terms, list) or not terms:
        raise document.error(place, f"found {terms!r}; a distiller has a list of one or more terms.", SpecError)
    parsed = tuple(_term(term, document, (*place, i)) for i, term in enumerate(terms))
    for i, term in enumerate(parsed):
        try:
            term.canonical()
        except SpecError as error:
            raise document.error((*place, i), str(error), SpecError) from None
    return parsed


def _term(data: Any, document: Document, location: Location) -> TermSpec:
    if not isinstance(data, dict):
        raise document.error(location, f"found {data!r}; a term has {', '.join(_TERM_KEYS)}.", SpecError)
    _refuse_unknown(data, _TERM_KEYS, document, location)
    for key in ("source", "distance", "weight"):
        if key not in data:
            raise document.error(location, f"the term has no '{key}'. A term has {', '.join(_TERM_KEYS)}.", SpecError)
    transforms = [] if data.get("transforms") is None else data["transforms"]
    if not isinstance(transforms, list):
        raise document.error((*location, "transforms"), f"found {transforms!r}; write a list of steps.", SpecError)
    adapter = data.get("adapter", "linear")
    if adapter not in ADAPTERS:
        raise document.error((*location, "adapter"), one_of(str(adapter), ADAPTERS, noun="adapter"), SpecError)
    return TermSpec(
        parse_step(data["source"], "source", document, (*location, "source")),
        tuple(
            parse_step(step, "transform", document, (*location, "transforms", i)) for i, step in enumerate(transforms)
        ),
        parse_step(data["distance"], "distance", document, (*location, "distance")),
        _weight(data["weight"], document, (*location, "weight")),
        parse_levels(data.get("levels", "all"), document, (*location, "levels")),
        adapter,
    )


def parse_levels(value: Any, document: Document, location: Location) -> Levels:
    """Read the levels of a term: a word, a name, or a list of names.

    Args:
        value: the plain data.
        document, location: where ``value`` is written, for errors.

    Raises:
        SpecError: with file and line, if it is none of these.
    """
    levels = tuple(value) if isinstance(value, list) else (value,)
    if wrong := wrong_levels(levels):
        raise document.error(location, wrong.removeprefix("levels: "), SpecError)
    return levels


def _weight(data: Any, document: Document, location: Location) -> Weight:
    kinds = [key for key in data if key in WEIGHT_KINDS] if isinstance(data, dict) else []
    if len(kinds) != 1:
        raise document.error(
            location, f"found {data!r}; write {{relative: ratio}}, {{absolute: factor}} or {{share: part}}.", SpecError
        )
    _refuse_unknown(data, (*WEIGHT_KINDS, "schedule", "level_weighting"), document, location)
    others = {key: value for key, value in data.items() if key not in kinds}
    if isinstance(others.get("schedule"), dict):
        others |= schedule_with_number(others["schedule"], document, (*location, "schedule"))
    try:
        return Weight(kinds[0], data[kinds[0]], **others)
    except SpecError as error:
        raise document.error(location, str(error), SpecError) from None


def schedule_with_number(data: dict[Any, Any], document: Document, location: Location) -> dict[str, Any]:
    """Read a schedule with a number, ``{off_after: 0.93}``; return it as arguments of ``Weight``.

    Args:
        data: the plain data.
        document, location: where ``data`` is written, for errors.

    Raises:
        SpecError: with file and line, if it has another key, or more than one.
    """
    if list(data) != ["off_after"]:
        raise document.error(location, f"found {data!r}; write a schedule's name, or {{off_after: part}}.", SpecError)
    return {"schedule": "off_after", "off_after": data["off_after"]}


def _refuse_unknown(data: dict[str, Any], allowed: tuple[str, ...], document: Document, location: Location) -> None:
    for key in data:
        if key not in allowed:
            raise document.error((*location, key), one_of(key, allowed, noun="key"), SpecError)


def _step_data(step: Step) -> str | dict[str, dict[str, Number]]:
    return {step.name: dict(step.params)} if step.params else step.name


def _term_data(term: TermSpec) -> dict[str, Any]:
    data = {
        "source": _step_data(term.source),
        "transforms": [_step_data(step) for step in term.transforms],
        "distance": _step_data(term.distance),
        "weight": _weight_data(term.weight),
    } | _levels_data(term.levels)
    return data if term.adapter == "linear" else data | {"adapter": term.adapter}


def _levels_data(levels: Levels) -> dict[str, Any]:
    if levels == ALL_LEVELS:
        return {}
    return {"levels": levels[0] if len(levels) == 1 else list(levels)}


def _weight_data(weight: Weight) -> dict[str, Any]:
    """Defaults are left out: a key that is added later then changes no digest of a distiller without it."""
    data: dict[str, Any] = {weight.kind: weight.value}
    if weight.schedule != "constant":
        is_off = weight.schedule == "off_after"
        data["schedule"] = {"off_after": weight.off_after} if is_off else weight.schedule
    if weight.level_weighting != "equal":
        data["level_weighting"] = weight.level_weighting
    return data


__all__ = [
    "SCHEMA",
    "WrittenDistiller",
    "distiller_from_document",
    "distiller_to_data",
    "families_of_document",
    "parse_levels",
    "parse_step",
    "schedule_with_number",
]
