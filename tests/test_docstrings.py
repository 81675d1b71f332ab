"""Every public name is documented: what it is, its parameters, what it returns, which errors it raises.

Public are the names in ``__all__`` of the packages and modules that the docs call public; a module without ``__all__``
has all names that do not begin with an underscore. The rules:

- A function lists each parameter under ``Args:`` by its name, unless it has none.
- It has ``Returns:`` (or ``Yields:``), unless it returns None or its first line says what it returns ("Return ...").
- It has ``Raises:`` with each AutoKDError, or a base of it, that its own body raises.
- A class documents the parameters of its constructor under ``Args:``, its fields there, under ``Attributes:`` or by a
  text below the field, and its public methods and properties as above. The tests of a suite are named by sentences.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

import autokd.errors
from autokd.errors import AutoKDError

PUBLIC = (
    "autokd",
    "autokd.api",
    "autokd.config",
    "autokd.data",
    "autokd.detectors",
    "autokd.distill",
    "autokd.documents",
    "autokd.errors",
    "autokd.metrics",
    "autokd.jobs",
    "autokd.detector_outputs",
    "autokd.presets",
    "autokd.report",
    "autokd.runtime",
    "autokd.search",
    "autokd.space",
    "autokd.spec",
    "autokd.storage",
    "autokd.study",
    "autokd.testing.frameworks",
    "autokd.testing.operators",
    "autokd.testing.runtimes",
    "autokd.testing.samplers",
    "autokd.testing.scripted_jobs",
)

ERRORS = {name: each for name, each in vars(autokd.errors).items() if inspect.isclass(each)}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    missing = [problem for where, value in names_of(name) for problem in problems_of(where, value)]
    assert not missing, "\n" + "\n".join(missing)


def names_of(package: str) -> Iterator[tuple[str, Any]]:
    """Yield the public functions and classes that are defined in a package, each once, at its home."""
    module = importlib.import_module(package)
    listed = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    for name in listed:
        value = getattr(module, name)
        home = getattr(value, "__module__", None) or ""
        is_ours = home == package or (home.startswith(f"{package}.") and package != "autokd")
        if is_ours and (inspect.isfunction(value) or inspect.isclass(value)):
            yield f"{package}.{name}", value


def problems_of(where: str, value: Any) -> list[str]:
    """Return what is missing in the docstrings of a function or a class."""
    if inspect.isfunction(value):
        return function_problems(where, value)
    problems = [] if _text(value) else [f"{where}: no docstring"]
    if issubclass(value, BaseException):
        return problems
    documented = _arguments(_text(value)) | _arguments(_text(value.__init__)) | _fields_with_text(value)
    problems += [f"{where}: '{name}' is not documented" for name in _constructor_names(value) if name not in documented]
    for name, member in vars(value).items():
        if name.startswith(("_", "test_")):
            continue
        if isinstance(member, (property, functools.cached_property)):
            getter = member.fget if isinstance(member, property) else member.func
            problems += [] if _text(getter) else [f"{where}.{name}: no docstring"]
            continue
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if inspect.isfunction(function) and not _is_inherited(value, name):
            problems += function_problems(f"{where}.{name}", function)
    return problems


def function_problems(where: str, function: Callable[..., Any]) -> list[str]:
    """Return what is missing in the docstring of a function or a method."""
    text = _text(function)
    if not text:
        return [f"{where}: no docstring"]
    problems = []
    names = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    problems += [f"{where}: '{name}' is not under Args" for name in names if name not in _arguments(text)]
    returned = function.__annotations__.get("return")
    says_so = re.match(r"(Return|Yield|Iterate)\b", text) or re.search(r"^(Returns|Yields):", text, re.MULTILINE)
    if returned not in (None, "None", "NoReturn") and not says_so:
        problems.append(f"{where}: neither 'Return ...' nor Returns")
    stated = _section(text, "Raises")
    for error in _raised(function):
        bases = {each.__name__ for each in ERRORS[error].__mro__ if issubclass(each, AutoKDError)}
        if not any(re.search(rf"\b{base}\b", stated) for base in bases):
            problems.append(f"{where}: raises {error}, which is not under Raises")
    return problems


def _text(value: Any) -> str:
    return inspect.cleandoc(getattr(value, "__doc__", None) or "")


def _section(text: str, title: str) -> str:
    """Return the indented lines below "TITLE:"."""
    found = re.search(rf"^{title}:\n((?:(?: .*)?\n?)*)", text, re.MULTILINE)
    return found[1] if found else ""


def _arguments(text: str) -> set[str]:
    """Return the names under Args, or Attributes of a class; one line may name several: "low, high: ..."."""
    lines = [line for title in ("Args", "Attributes") for line in textwrap.dedent(_section(text, title)).splitlines()]
    heads = [re.match(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \(.*?\))?:", line) for line in lines]
    return {name.lstrip("*") for head in heads if head for name in head[1].split(", ")}


def _constructor_names(value: type) -> list[str]:
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value) if field.init and not field.name.startswith("_")]
    if issubclass(value, BaseModel):
        return list(value.model_fields)
    is_ours = getattr(value.__init__, "__module__", "").startswith("autokd")
    if not is_ours or getattr(value, "_is_protocol", False):
        return []
    return [name for name in inspect.signature(value.__init__).parameters if name != "self"]


def _fields_with_text(value: type) -> set[str]:
    """Return the fields, inherited ones too, that a text follows in the class's body."""
    found: set[str] = set()
    for each in value.__mro__:
        if not each.__module__.startswith("autokd"):
            continue
        body = _tree(each).body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                found.add(field.target.id)
        found |= _arguments(_text(each))
    return found


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_inherited(value: type, name: str) -> bool:
    """Return whether a base documents the method; an override of it need not repeat that."""
    return any(_text(vars(base).get(name)) for base in value.__mro__[1:] if base is not object)


def _raised(function: Callable[..., Any]) -> set[str]:
    """Return the AutoKDErrors that the body raises by name, functions inside it left out."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(_tree(function).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            found |= {node.exc.func.id} & ERRORS.keys()
        waiting += ast.iter_child_nodes(node)
    return found


def _tree(value: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body[0]
