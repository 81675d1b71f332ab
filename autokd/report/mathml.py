"""Formulas in mathematical type: a distiller, and the formulas of operators, as MathML, which browsers draw.

The formulas of the vocabulary are plain text in a small language: names, numbers, indices (``x_i``), powers (``^2``),
parentheses, bars, ``<a, b>`` and words such as ``mean`` and ``sqrt``. What the reader here does not know is shown as
it is written, so that no formula can fail.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from autokd.errors import AutoKDError
from autokd.spec import DistillerSpec, operator_of
from autokd.spec.operator import Kind
from autokd.spec.terms import ALL_LEVELS, Step, TermSpec
from autokd.spec.vocabulary import IDENTITY

_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "lambda": "λ", "phi": "φ", "rho": "ρ", "sigma": "σ", "tau": "τ",
    "theta": "θ", "pi": "π", "temperature": "τ",
}  # fmt: skip
_SIGNS = {"*": "·", "-": "−", "x ": "×", "<=": "≤", ">=": "≥", "!=": "≠", "->": "→", "||": "∥", "...": "…"}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)|(?P<name>[A-Za-z]+)|(?P<sign>\|\||<=|>=|!=|->|\.\.\.|.))", re.S
)


@dataclass(frozen=True, slots=True)
class OperatorCard:
    """An operator of a distiller, explained.

    Args:
        name: its name.
        kind: "source", "transform" or "distance".
        math: its formula as MathML.
        meaning: what it does.
        paper: where it was published.
    """

    name: str
    kind: Kind
    math: str
    meaning: str
    paper: str


def formula_mathml(text: str) -> str:
    """Return a formula of the vocabulary as an element ``math``.

    Args:
        text: the formula, such as "mean (s - t)^2".
    """
    return f'<math aria-label="{html.escape(text)}"><mrow>{"".join(_row(_tokens(text)))}</mrow></math>'


def distiller_mathml(spec: DistillerSpec) -> str:
    """Return a distiller as an element ``math``: a sum of terms; operators bear their meaning in ``data-tip``.

    Args:
        spec: the distiller.
    """
    terms = [_term(term) for term in spec.terms]
    rows = [f"<mtr><mtd><mi>L</mi><mo>=</mo></mtd><mtd>{terms[0]}</mtd></mtr>"]
    rows += [f"<mtr><mtd><mo>+</mo></mtd><mtd>{term}</mtd></mtr>" for term in terms[1:]]
    return f'<math display="block"><mtable columnalign="right left">{"".join(rows)}</mtable></math>'


def operator_cards(spec: DistillerSpec) -> list[OperatorCard]:
    """Return the operators of a distiller in the order of their first occurrence.

    Args:
        spec: the distiller.
    """
    cards: dict[tuple[str, str], OperatorCard] = {}
    for term in spec.terms:
        for kind, step in _steps(term):
            row = operator_of(kind, step.name)
            cards.setdefault(
                (kind, step.name),
                OperatorCard(step.name, kind, formula_mathml(_filled(kind, step)), row.meaning, row.paper),
            )
    return list(cards.values())


def read_spec(yaml: str) -> DistillerSpec | None:
    """Return the distiller of a YAML text; None if it is none, or an operator is not installed here.

    Args:
        yaml: text of a distiller's file.
    """
    try:
        return DistillerSpec.from_yaml(yaml) if "\n" in yaml else None
    except AutoKDError:
        return None


def _term(term: TermSpec) -> str:
    inner = _operator("source", term.source, "")
    if term.levels != ALL_LEVELS:
        inner = f"<msub><mrow>{inner}</mrow><mtext>{html.escape(', '.join(term.levels))}</mtext></msub>"
    if term.adapter != "linear":
        inner = f"<mi>{html.escape(term.adapter)}</mi><mo>(</mo>{inner}<mo>)</mo>"
    for step in term.transforms:
        if step.name != IDENTITY:
            inner = _operator("transform", step, inner)
    return f"{_weight(term)}{_operator('distance', term.distance, inner)}"


def _weight(term: TermSpec) -> str:
    weight = term.weight
    notes: list[str] = [weight.kind, *([weight.schedule] if weight.schedule != "constant" else [])]
    notes += [f"{weight.level_weighting}-weighted levels"] if weight.level_weighting != "equal" else []
    tip = {
        "relative": "gradient norm of the term over that of the task loss",
        "absolute": "a plain factor",
        "share": "share of the term in the gradient",
    }[weight.kind]
    tip = f"weight: {', '.join(notes).replace('_', ' ')}: {tip}"
    return f"{_tipped(f'{weight.value:g}', tip)}<mo>×</mo>"


def _operator(kind: Kind, step: Step, inner: str) -> str:
    row = operator_of(kind, step.name)
    name = _tipped(step.name, f"{kind}: {row.meaning} ({row.paper})")
    if kind == "source":
        return name
    settings = "".join(
        f"<mo>;</mo><mi>{html.escape(key)}</mi><mo>=</mo><mn>{value:g}</mn>" for key, value in step.params
    )
    return f"{name}<mo>(</mo>{inner}{settings}<mo>)</mo>"


def _tipped(text: str, tip: str) -> str:
    """Return a word that says more on hover and on focus; MathML's text elements may hold HTML."""
    return (
        f'<mtext><span class="op" tabindex="0" role="button" aria-label="{html.escape(text)}: {html.escape(tip)}" '
        f'data-tip="{html.escape(tip)}">{html.escape(text)}</span></mtext>'
    )


def _filled(kind: Kind, step: Step) -> str:
    settings = {name: f"{value:g}" for name, value in step.settings(kind).items()}
    return operator_of(kind, step.name).formula.format(**settings)


def _steps(term: TermSpec) -> list[tuple[Kind, Step]]:
    transforms: list[tuple[Kind, Step]] = [("transform", step) for step in term.transforms if step.name != IDENTITY]
    return [("source", term.source), *transforms, ("distance", term.distance)]


# ------------------------------------------------------------------------------- the language of formulas


def _tokens(text: str) -> list[tuple[str, str]]:
    return [(match.lastgroup or "sign", match[match.lastgroup or 0]) for match in _TOKEN.finditer(text.strip())]


def _row(tokens: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the elements of a row of tokens."""
    i = 0
    while i < len(tokens):
        element, i = _scripted(tokens, i)
        yield element


def _scripted(tokens: list[tuple[str, str]], i: int) -> tuple[str, int]:
    """Return the element at ``i`` with its index and its power, and the place behind it."""
    base, i = _atom(tokens, i)
    sub = sup = ""
    while i + 1 < len(tokens) and tokens[i][1] in ("_", "^"):
        is_sub = tokens[i][1] == "_"
        script, i = _atom(tokens, i + 1)
        sub, sup = (script, sup) if is_sub else (sub, script)
    if sub and sup:
        return f"<msubsup>{base}{sub}{sup}</msubsup>", i
    if sub or sup:
        return f"<msub>{base}{sub}</msub>" if sub else f"<msup>{base}{sup}</msup>", i
    return base, i


def _atom(tokens: list[tuple[str, str]], i: int) -> tuple[str, int]:
    kind, text = tokens[i]
    if kind == "number":
        return f"<mn>{text}</mn>", i + 1
    if kind == "name":
        return _name(tokens, i)
    if text == "(":
        return _group(tokens, i)
    return f"<mo>{html.escape(_SIGNS.get(text, text))}</mo>", i + 1


def _name(tokens: list[tuple[str, str]], i: int) -> tuple[str, int]:
    text = tokens[i][1]
    if text == "sqrt" and i + 1 < len(tokens) and tokens[i + 1][1] == "(":
        end = _closing(tokens, i + 1)
        return f"<msqrt>{''.join(_row(tokens[i + 2 : end]))}</msqrt>", end + 1
    if text == "sum":
        return "<mo>∑</mo>", i + 1
    if text in _GREEK:
        return f"<mi>{_GREEK[text]}</mi>", i + 1
    # One letter is a quantity, in italics; a word is a function or plain words, upright.
    # Several elements in a row, so that an index belongs to all of them.
    word = f'<mrow><mi mathvariant="normal">{text}</mi><mspace width="0.2em"/></mrow>'
    return (f"<mi>{text}</mi>" if len(text) == 1 else word), i + 1


def _group(tokens: list[tuple[str, str]], i: int) -> tuple[str, int]:
    end = _closing(tokens, i)
    close = "<mo>)</mo>" if end < len(tokens) else ""
    return f"<mrow><mo>(</mo>{''.join(_row(tokens[i + 1 : end]))}{close}</mrow>", end + 1


def _closing(tokens: list[tuple[str, str]], i: int) -> int:
    """Return the place of the parenthesis that closes the one at ``i``; the end if there is none."""
    depth = 0
    for place in range(i, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[place][1], 0)
        if depth == 0:
            return place
    return len(tokens)
