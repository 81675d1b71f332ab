"""Work ahead of a training: batches made by threads, in order, and copied to a GPU beside its computing.

Threads and no processes: Pillow decodes and scales without holding Python's lock, and threads share the images that a
data set keeps in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Item = TypeVar("Item")
Made = TypeVar("Made")

MOST_THREADS = 8
"""Most threads that decode for one GPU: eight decode about 1,500 images of 640 px a second, more than it trains on."""
_READY_PER_THREAD = 2
"""Results that are ready or in work for each thread: one that is read, one that is made."""


def decoding_threads(device: torch.device) -> int:
    """Return the number of threads that load ahead for trainings on a device; 0: the training's own thread loads.

    On a CPU a thread that loads would take its time from the training itself.
    """
    return 0 if device.type == "cpu" else max(1, min(MOST_THREADS, torch.get_num_threads()))


def made_ahead(make: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Made]:
    """Return ``map(make, items)``, in order, computed ahead by threads.

    An exception of ``make`` is raised in the loop that reads, at its item's place. Leaving that loop early drops what
    no thread has begun, and waits for the rest.

    Args:
        make: called once for each item, by any of the threads.
        items: read by the loop's own thread.
        threads: number of threads; 0: ``make`` is called when its result is wanted.
    """
    if threads == 0:
        yield from map(make, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="autokd-loader") as pool:
        ready: deque[Future[Made]] = deque()
        try:
            ready.extend(pool.submit(make, item) for item in islice(waiting, _READY_PER_THREAD * threads))
            while ready:
                made = ready.popleft().result()
                ready.extend(pool.submit(make, item) for item in islice(waiting, 1))
                yield made
        finally:
            for future in ready:
                future.cancel()


def made_by_processes(
    make: Callable[[Item], Made], items: Sequence[Item], processes: int, *, pinned: bool = False
) -> Iterator[Made]:
    """Return ``map(make, items)``, in order, computed ahead by processes: for what draws from global random numbers.

    Args:
        make: called once for each item, in any of the processes, which are forks of this one.
        items: the items.
        processes: number of processes; 0: ``make`` is called in this process, when its result is wanted.
        pinned: whether tensors of the results come in pinned memory.
    """
    if processes == 0:
        yield from map(make, items)
        return
    loader = DataLoader(
        _Calls(make, items),
        batch_size=None,
        num_workers=processes,
        prefetch_factor=_READY_PER_THREAD,
        pin_memory=pinned,
        collate_fn=_as_it_is,  # torch's own makes lists of tuples
        generator=torch.Generator(),  # of its own: the training's random numbers must not depend on loading
        multiprocessing_context="fork",
    )
    yield from loader


def _as_it_is(made: Made) -> Made:
    return made


@dataclass(frozen=True)
class _Calls(Dataset[Made]):
    """Calls of a function as a data set of torch."""

    make: Callable[[Any], Made]
    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Made:
        return self.make(self.items[index])


def copied_beside(copy: Callable[[Item], Made], items: Iterable[Item], device: torch.device) -> Iterator[Made]:
    """Return ``map(copy, items)``, in which a GPU copies beside its computing.

    The copies are queued on a stream of their own, so that they run while the kernels of the step before are at work;
    the stream that computes waits for them on the GPU, not on the host.

    Args:
        copy: copies an item's pinned tensors to ``device`` without waiting; returns a dataclass or tuple of tensors.
        items: host data.
        device: device of the results; on any but a GPU this is ``map``.
    """
    if device.type != "cuda":
        yield from map(copy, items)
        return
    beside = torch.cuda.Stream(device)
    for item in items:
        with torch.cuda.stream(beside):
            made = copy(item)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(beside)
        for tensor in _tensors_of(made):
            # The allocator knows the stream that allocated; without this it could reuse the memory while it is read.
            tensor.record_stream(computing)
        yield made


def _tensors_of(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors_of(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors_of(part)
