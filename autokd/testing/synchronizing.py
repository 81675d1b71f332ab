"""Calls that make the host wait for a GPU, counted while the code runs on a CPU.

On a GPU each of them ends in a copy between device and host, for which the host waits until all that was queued is
done: a number that is read (``item``, ``bool``, ``tolist``, ``cpu``), a shape that depends on values (``nonzero``,
``unique``, an index by a mask), and a tensor made of Python's numbers on a device. Backward passes count too, since on
a CPU they run in the thread that asks for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_READING = frozenset({"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"})
_OF_VALUES = frozenset({"aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::bincount"})
_INDEXING = frozenset({"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"})
_TO_HOST = frozenset({"tolist", "cpu", "numpy", "__array__"})
_FROM_HOST = frozenset({"tensor", "as_tensor"})


class SynchronizingCalls:
    """Counts the synchronizing calls of a block: ``with SynchronizingCalls() as calls: ...``.

    Attributes:
        by_name: number of calls by the name of the operation.
    """

    def __init__(self) -> None:
        self.by_name: Counter[str] = Counter()
        self._stack = ExitStack()

    @property
    def total(self) -> int:
        """Number of all calls."""
        return self.by_name.total()

    def __enter__(self) -> SynchronizingCalls:
        self._stack.enter_context(_Functions(self.by_name))
        self._stack.enter_context(_Operations(self.by_name))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class _Operations(TorchDispatchMode):
    """Counts operations of aten that read numbers, or whose result has a shape that depends on them."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        if name in _READING | _OF_VALUES or (name in _INDEXING and _has_mask(name, args)):
            self._found[name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


def _has_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a tensor is indexed by truth values; to fill such cells with one number needs no count of them."""
    masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
    fills = name != "aten::index" and args[2].numel() == 1 and len(args[1]) == 1
    return bool(masks) and not fills


class _Functions(TorchFunctionMode):
    """Counts copies between host and device that pass no operation of aten on a CPU."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, given = getattr(func, "__name__", ""), kwargs or {}
        of_numbers = not (args and isinstance(args[0], Tensor))
        makes = name == "new_tensor" or (name in _FROM_HOST and of_numbers and given.get("device") is not None)
        if makes or name in _TO_HOST:
            self._found[name] += 1
        return func(*args, **given)
