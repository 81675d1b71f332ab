"""A teacher or student of any framework, one teacher or several, and how several share the loss."""

from __future__ import annotations

from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from autokd.config.detector_sections import DetectorSection
from autokd.config.frameworks import ORDINARY_FRAMEWORK, framework_rows
from autokd.errors import one_of


def section_classes() -> tuple[type[DetectorSection], ...]:
    """Return the section class of each framework."""
    return tuple(row.section for row in framework_rows())


@cache
def _reader_of(sections: tuple[type[DetectorSection], ...]) -> TypeAdapter[Any]:
    # Made anew for each set of frameworks: pydantic's unions are fixed when they are built, and a framework may be
    # registered after the configuration's models were.
    union: Any = Annotated[reduce(or_, sections), Field(discriminator="framework")]
    return TypeAdapter(union)


def _of_its_framework(found: Any, _: ValidatorFunctionWrapHandler) -> DetectorSection:
    """Read a section by the class of its framework; pydantic adds its errors to those of the whole file."""
    section: DetectorSection = _reader_of(section_classes()).validate_python(found)
    return section


Detector = Annotated[SerializeAsAny[DetectorSection], WrapValidator(_of_its_framework)]
"""Section of any framework, read by the class that ``framework`` names; in a file, none means torchvision."""


def _distinct_teachers(teachers: tuple[Detector, ...]) -> tuple[Detector, ...]:
    if not teachers:
        raise ValueError("the list is empty. Give at least one teacher")
    for i, teacher in enumerate(teachers):
        if teacher in teachers[:i]:
            first = teachers.index(teacher)
            raise ValueError(f"teachers {first + 1} and {i + 1} are one and the same. Name it once, with its factor")
    return teachers


TeacherTag = Literal["one", "several"]


def _one_or_several(teacher: Any) -> TeacherTag:
    return "several" if isinstance(teacher, (list, tuple)) else "one"


Teachers = Annotated[
    Annotated[Detector, Tag("one")]
    | Annotated[tuple[Detector, ...], AfterValidator(_distinct_teachers), Tag("several")],
    Discriminator(_one_or_several),
]
"""One section, or a list of them; a list of one is that one."""

TeacherRule = Literal["equal", "gap", "gradient"]
"""Rules for the factors of several teachers: ``autokd.distill.teacher_ensemble``."""
TEACHER_RULES: tuple[TeacherRule, ...] = ("equal", "gap", "gradient")


def _known_factors(found: Any) -> Any:
    remedy = f"Write one of {', '.join(TEACHER_RULES)}, or a list of positive numbers, one a teacher"
    if isinstance(found, str):
        if found not in TEACHER_RULES:
            raise ValueError(f"{one_of(found, TEACHER_RULES)} {remedy}")
    elif not isinstance(found, (list, tuple)) or not all(_is_positive(number) for number in found):
        raise ValueError(f"found {found!r}. {remedy}")
    return found


def _is_positive(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number < float("inf")


TeacherWeights = Annotated[TeacherRule | tuple[float, ...], BeforeValidator(_known_factors)]


def with_framework(section: Any) -> Any:
    """A detector's section with the ordinary framework where it names none."""
    if isinstance(section, dict) and "framework" not in section:
        return {"framework": ORDINARY_FRAMEWORK} | section
    return section
