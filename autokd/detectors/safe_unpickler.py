"""A ``pickle`` that makes tensors and plain containers, and an inert placeholder of everything else.

A pickle is a program: it names functions and calls them. This module resolves only the names that rebuild tensors; any
other name becomes ``Placeholder``, which accepts all operations of a pickle and does nothing. So a checkpoint of any
origin is read without running code that it brings. Use: ``torch.load(..., pickle_module=safe_unpickler)``.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from typing import Any

import torch
import torch._utils
from torch.nn.parameter import Parameter

UnpicklingError = pickle.UnpicklingError

_FOUND: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch.nn.parameter", "Parameter"): Parameter,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}
_TYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype) or "Storage" in name}


class Placeholder:
    """An inert object in the place of an object, a class or a function."""

    def __new__(cls, *_arguments: Any, **_keywords: Any) -> Placeholder:
        return object.__new__(cls)

    def __init__(self, *_arguments: Any, **_keywords: Any) -> None: ...

    def __call__(self, *_arguments: Any, **_keywords: Any) -> Placeholder:
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...

    def add(self, item: Any) -> None: ...


class Unpickler(pickle.Unpickler):
    """Resolves names of tensors, storages and containers, and any other name to ``Placeholder``."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        return _FOUND.get((module, name), Placeholder)


def load(file: Any, **settings: Any) -> Any:
    """As ``pickle.load``."""
    return Unpickler(file, **settings).load()


def loads(data: bytes, **settings: Any) -> Any:
    """As ``pickle.loads``."""
    return load(io.BytesIO(data), **settings)
