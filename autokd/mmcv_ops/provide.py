"""Puts AutoKD's module in the place of ``mmcv._ext``, only where no real one can be imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Literal, NoReturn

from autokd.errors import DetectorError

NAME = "mmcv._ext"
"""The module that mmcv's operators are compiled into."""

REMEDY = (
    "install an mmcv compiled for this torch (pip install onedl-mim, then: mim install onedl-mmcv), "
    "or choose a config that does without it"
)

State = Literal["compiled", "supplied by AutoKD", "absent"]


class SuppliedOperators(ModuleType):
    """A substitute for ``mmcv._ext`` with the operators of ``autokd.mmcv_ops.table``; others raise when called.

    When called, and not when looked up: ``mmcv.ops`` asserts at its import that all its operators are there.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}")

        def absent(*_args: object, **_kwargs: object) -> NoReturn:
            raise DetectorError(absent_operator(name))

        absent.__name__ = name
        setattr(self, name, absent)
        return absent


def absent_operator(name: str) -> str:
    """Return the message for an operator that neither mmcv nor AutoKD can run."""
    return (
        f"mmcv's operator {name!r} was called, but this mmcv has no compiled operators, and AutoKD's substitute "
        f"has none of that name. Remedy: {REMEDY}."
    )


def provide_mmcv_ops() -> State:
    """Make ``import mmcv.ops`` work; return where the operators come from.

    A real ``mmcv._ext`` is left alone, however it is found: already imported, on mmcv's path, or by an import hook.
    One that is there but does not load (built for another torch) is replaced with a warning. Call it as often as
    you like. "absent": there is no mmcv at all, and nothing was done.
    """
    module = sys.modules.get(NAME)
    if module is None:
        if not _mmcv_installed():
            return "absent"
        module = _compiled() or _supplied()
        sys.modules[NAME] = module
    return "supplied by AutoKD" if isinstance(module, SuppliedOperators) else "compiled"


def operators_state() -> State:
    """Return what ``provide_mmcv_ops`` would, without importing mmcv or changing anything.

    Whether a compiled extension also loads is not tried here.
    """
    module = sys.modules.get(NAME)
    if module is not None:
        return "supplied by AutoKD" if isinstance(module, SuppliedOperators) else "compiled"
    if not _mmcv_installed():
        return "absent"
    return "compiled" if _has_compiled() else "supplied by AutoKD"


def _mmcv_installed() -> bool:
    return sys.modules.get("mmcv") is not None or importlib.util.find_spec("mmcv") is not None


def _has_compiled() -> bool:
    """Whether there is a file of ``mmcv._ext``, without importing mmcv."""
    mmcv = sys.modules.get("mmcv")
    if mmcv is not None:
        paths = list(getattr(mmcv, "__path__", []))
    else:
        spec = importlib.util.find_spec("mmcv")
        paths = list(spec.submodule_search_locations or []) if spec is not None else []
    return any(finder.find_spec(NAME, paths) is not None for finder in sys.meta_path)


def _compiled() -> ModuleType | None:
    if not _has_compiled():
        return None
    try:
        return importlib.import_module(NAME)
    except ImportError as error:
        import warnings

        warnings.warn(
            f"mmcv's compiled operators do not load ({error}); AutoKD's substitute is used. Remedy: {REMEDY}.",
            RuntimeWarning,
            stacklevel=3,
        )
        return None


def _supplied() -> SuppliedOperators:
    from autokd.mmcv_ops.table import OPERATORS

    module = SuppliedOperators(NAME, "mmcv's operators, supplied by AutoKD.")
    # mmcv and importlib read a module's specification; one without a loader means that there is nothing to load.
    module.__spec__ = ModuleSpec(NAME, loader=None, origin="autokd.mmcv_ops")
    vars(module).update(OPERATORS)
    return module
