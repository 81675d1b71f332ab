"""Templates of the pages. They share the report's own, of which ``parts.html.jinja`` has what both show."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from autokd.report.words import duration

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a template's text; values are escaped.

    Args:
        template: name of the template, such as "run.html".
        values: what it shows.
    """
    return _environment().get_template(f"{template}.jinja").render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loaders = [PackageLoader("autokd_dashboard", "templates"), PackageLoader("autokd.report", "templates")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": _duration, "number": _number, "signed": _signed, "when": _when, "size": _size}
    environment.globals["version"] = metadata.version("autokd")
    return environment


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:+.{digits}f}"


def _when(seconds: float | None) -> str:
    return "–" if not seconds else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MB" if count >= 2**20 else f"{max(1, count // 1024)} kB"
