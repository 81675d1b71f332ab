"""Packages of AutoKD that are verbs too: ``autokd.search(config)`` beside ``autokd.search.MCTSSampler``.

``autokd.search`` and ``autokd.distill`` are subpackages, and the import system stores each on ``autokd`` as soon as it
is loaded, whoever imports it. A function of that name on ``autokd`` would be overwritten at that moment. So the package
itself becomes callable: the class of the module ``autokd`` sees when a subpackage is stored, and gives it a class with
``__call__``. Nothing is imported for it, and the object in ``sys.modules`` stays the same.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from autokd import api

VERBS: Mapping[str, Callable[..., Any]] = {"search": api.search, "distill": api.distill}
"""Subpackage -> what a call of it does."""


class RootPackage(ModuleType):
    """Class of the module ``autokd``: makes the packages of ``VERBS`` callable as soon as they are loaded."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in VERBS and isinstance(value, ModuleType):
            _make_callable(value, VERBS[name])
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        # cloudpickle, with which Ray sends functions, knows modules by their exact type and would refuse this class.
        return importlib.import_module, (self.__name__,)


class CallablePackage(ModuleType):
    """Class of a subpackage that can be called like a function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return VERBS[self.__name__.rpartition(".")[2]](*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        return importlib.import_module, (self.__name__,)


def _make_callable(package: ModuleType, verb: Callable[..., Any]) -> None:
    """Give a package its verb, the verb's signature, and its reference page in front of the package's own text."""
    signature = inspect.signature(verb)
    summary, _, details = (inspect.getdoc(verb) or "").partition("\n")
    parameters = "".join(f"\n    {parameter}," for parameter in _parameters(signature))
    call = f"{package.__name__}({parameters}\n) -> {signature.return_annotation}"
    about = f"The package {package.__name__}:\n\n{package.__doc__ or ''}"
    package.__doc__ = f"{summary}\n\n{call}\n{details}\n\n{about}"
    package.__signature__ = signature  # type: ignore[attr-defined]
    package.__class__ = CallablePackage


def _parameters(signature: inspect.Signature) -> list[str]:
    """Return each parameter as it is written, with a star before the first that is given by its name alone."""
    texts = [str(parameter).replace("'", "") for parameter in signature.parameters.values()]
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        texts.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    return texts
