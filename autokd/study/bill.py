"""The bill of a run: disk, memory, hours and money of each phase, from what a step costs and how many there are.

Pure arithmetic: ``planning.py`` measures and counts. Times are upper limits where a run may end a phase early (the
race); what a run cannot know (a pruner, duplicates) is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

GIB = 2**30
USABLE_SHARE = 0.95
"""Share of the free disk and of the memory that a run may take."""


@dataclass(frozen=True)
class Phase:
    """One phase of a run.

    Args:
        name: its name.
        jobs: trainings, or passes of a teacher.
        images: images that go through a network in all of them, those of measurements included.
        seconds: time of one worker for all of them.
        wall_s: time on the wall, with all workers.
        disk_bytes: bytes that the phase leaves in the cache.
        turn: the setting that makes it cheaper; empty: none does.
    """

    name: str
    jobs: int
    images: int
    seconds: float
    wall_s: float
    disk_bytes: int = 0
    turn: str = ""


@dataclass(frozen=True)
class Bill:
    """The forecast of a run.

    Args:
        name: name of the study.
        phases: phases in their order; those that cost nothing are left out.
        workers: trainings at a time.
        gpus: cards that the run holds from its beginning to its end; 0: it trains on a CPU.
        price: price of an hour of one card, of the machine if there is none; None: not given.
        free_bytes: free space of the cache's disk.
        present_bytes: bytes of the caches that are there already.
        worker_bytes: memory of a worker: of its card, or on the machine.
        memory_bytes: memory of the card, or of the machine.
        workers_in_memory: workers that share this memory.
        device: name of the machine's device.
        measured_s: time that the measurement took.
        notes: sentences on what was assumed.
    """

    name: str
    phases: Sequence[Phase]
    workers: int
    gpus: float
    price: float | None
    free_bytes: int
    present_bytes: int
    worker_bytes: int
    memory_bytes: int
    workers_in_memory: int
    device: str
    measured_s: float
    notes: Sequence[str] = ()

    @property
    def disk_bytes(self) -> int:
        """Bytes that are still to be written to the cache."""
        return max(0, sum(phase.disk_bytes for phase in self.phases) - self.present_bytes)

    @property
    def wall_s(self) -> float:
        """Time on the wall."""
        return sum(phase.wall_s for phase in self.phases)

    @property
    def used_bytes(self) -> int:
        """Memory that the workers of one card or machine take together."""
        return self.worker_bytes * self.workers_in_memory

    def cost(self, wall_s: float) -> float | None:
        """Return the price of some time on the wall; None if no price was given.

        Args:
            wall_s: seconds.
        """
        return None if self.price is None else self.price * max(self.gpus, 1.0) * wall_s / 3600

    @property
    def dominant(self) -> Phase:
        """The phase that takes most of the time."""
        return max(self.phases, key=lambda phase: phase.wall_s)

    @property
    def widest(self) -> Phase | None:
        """The phase that takes most of the disk; None if nothing is written."""
        found = max(self.phases, key=lambda phase: phase.disk_bytes)
        return found if found.disk_bytes > 0 else None

    def advice(self) -> tuple[str, ...]:
        """Return sentences: what dominates time and disk, and which settings change it."""
        found = [_advice("time", self.dominant, self.dominant.wall_s / self.wall_s if self.wall_s else 1.0)]
        if self.widest is not None:
            total = sum(phase.disk_bytes for phase in self.phases)
            found.append(_advice("the disk's space", self.widest, self.widest.disk_bytes / total))
        return tuple(dict.fromkeys(found))

    def excess(self) -> str:
        """Return what cannot fit, with numbers and the remedy; empty if all does."""
        if self.disk_bytes > USABLE_SHARE * self.free_bytes:
            turn = self.widest.turn if self.widest is not None else ""
            return (
                f"the teachers' outputs need {size_words(self.disk_bytes)} of disk, and {size_words(self.free_bytes)} "
                f"are free. Free some space, move the cache (--cache-dir)" + (f", or {turn}." if turn else ".")
            )
        if self.used_bytes > USABLE_SHARE * self.memory_bytes:
            return (
                f"{self.workers_in_memory} workers need {size_words(self.used_bytes)} of memory, and there are "
                f"{size_words(self.memory_bytes)}. Lower runtime.workers, or batch_size."
            )
        return ""

    def line(self) -> str:
        """Return the bill as one line."""
        words = [
            f"forecast: {time_words(self.wall_s)}",
            f"{size_words(self.disk_bytes)} of disk ({size_words(self.free_bytes)} free)",
            f"{size_words(self.used_bytes)} of {size_words(self.memory_bytes)} memory",
        ]
        if (cost := self.cost(self.wall_s)) is not None:
            words.append(f"{cost:.2f} at {self.price:g} an hour")
        share = self.dominant.wall_s / self.wall_s if self.wall_s else 1.0
        return ", ".join(words) + f"; {share:.0%} of the time: {self.dominant.name}"

    def to_data(self) -> dict[str, Any]:
        """Return the bill as plain data, with sums, advice and what cannot fit."""
        data = asdict(self)
        data["phases"] = [asdict(phase) | {"cost": self.cost(phase.wall_s)} for phase in self.phases]
        data |= {
            "disk_bytes": self.disk_bytes,
            "wall_s": self.wall_s,
            "cost": self.cost(self.wall_s),
            "advice": list(self.advice()),
            "excess": self.excess(),
            "notes": list(self.notes),
        }
        return data


def _advice(what: str, phase: Phase, share: float) -> str:
    turn = f": {phase.turn}" if phase.turn else ""
    return f"{share:.0%} of {what} is {phase.name}{turn}."


def size_words(num_bytes: float) -> str:
    """Return a number of bytes as text with three digits: "1.03 TB" (10^12 bytes), "20.7 GB", "512 MB"."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if num_bytes >= 10**power:
            return f"{num_bytes / 10**power:.3g} {unit}"
    return f"{num_bytes / 1000:.0f} kB"


def time_words(seconds: float) -> str:
    """Return a time as text: "3.2 days", "11 h", "25 min", "40 s"."""
    for length, unit, digits in ((2 * 86400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= length:
            per = 86400 if unit == "days" else length
            return f"{seconds / per:.{digits}f} {unit}"
    return f"{seconds:.0f} s"
