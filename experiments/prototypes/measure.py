"""Time the choice of prototypes beside the direct form, which builds every difference of candidate and instance.

    python experiments/prototypes/measure.py --out experiments/prototypes/result.json

Each measurement runs in a process of its own (Linux: the peak is the kernel's VmHWM, reset just before), the forms
by turns. The direct form is as lean as it can be while still direct: float32, one space after the other, everything
in place, so that a single (K, D, N) tensor is held, allocated once. Both find the candidates with the same densities,
so that only the pursuit differs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from autokd.benchmark import current_commit
from autokd.distill.prototype_selection import select_prototypes

ALPHA, BANDWIDTH, QUANTILE = 10.0, 0.1, 0.4
MIB = 2**20
Measurement = dict[str, object]


def vectors(kind: str, n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clustered: 20 modes shared by both spaces. Isotropic: all densities equal, so every row is a candidate."""
    g = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(n, d, generator=g), torch.randn(n, d, generator=g)
    if kind == "isotropic":
        return student, teacher
    mode = torch.randint(20, (n,), generator=g)
    spread = 0.2 + 0.4 * torch.rand(n, 1, generator=g)
    student_modes, teacher_modes = torch.randn(20, d, generator=g), torch.randn(20, d, generator=g)
    return student_modes[mode] + spread * student, teacher_modes[mode] + spread * teacher


def candidates(*spaces: Tensor) -> Tensor:
    dense = torch.ones(len(spaces[0]), dtype=torch.bool)
    for x_ND in spaces:
        x_ND = torch.nn.functional.normalize(x_ND.double())
        density = torch.exp(-(((1 - x_ND @ x_ND.T) / BANDWIDTH) ** 2)).sum(1)
        dense &= density >= density.quantile(QUANTILE) * (1 - 1e-13)
    return dense.nonzero()[:, 0]


def direct(student: Tensor, teacher: Tensor, num_steps: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The published objective through (K, D, N) differences, chosen atoms masked."""
    rows_K = candidates(student, teacher)
    a_ND, b_ND = (torch.nn.functional.normalize(x.double()).to(dtype) for x in (student, teacher))
    left = [a_ND.clone(), b_ND.clone()]
    atoms = [a_ND[rows_K], b_ND[rows_K]]
    held_KDN = torch.empty(len(rows_K), max(a_ND.shape[1], b_ND.shape[1]), len(a_ND), dtype=dtype)
    chosen: list[int] = []
    for _ in range(num_steps):
        ia_KN, ib_KN = (p_KD @ r_ND.T for p_KD, r_ND in zip(atoms, left))
        w_KN = [(ALPHA * (ia_KN + ib_KN) + i_KN) / (1 + 2 * ALPHA) for i_KN in (ia_KN, ib_KN)]
        errors_K = ALPHA * (w_KN[0] - w_KN[1]).square().sum(1)
        for p_KD, r_ND, own_KN in zip(atoms, left, w_KN):
            d = p_KD.shape[1]
            difference_KDN = torch.mul(p_KD[:, :, None], own_KN[:, None, :], out=held_KDN[:, :d])
            difference_KDN -= r_ND.T
            errors_K += difference_KDN.square_().sum((1, 2))
        errors_K[chosen] = torch.inf
        best = int(errors_K.argmin())
        chosen.append(best)
        for p_KD, r_ND, own_KN in zip(atoms, left, w_KN):
            r_ND -= own_KN[best][:, None] * p_KD[best]
    return rows_K[chosen]


def _status_mib(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def measured(form: str, kind: str, n: int, d: int, num_steps: int) -> Measurement:
    """Seconds on the wall, seconds of the processor, and extra MiB of one call."""
    torch.set_num_threads(1)
    chooses: Callable[..., Tensor] = select_prototypes if form == "ours" else direct
    student, teacher = vectors(kind, n, d, seed=0)
    chooses(student[:100], teacher[:100], 2)
    Path("/proc/self/clear_refs").write_text("5")
    before, wall, processor = _status_mib("VmRSS"), time.perf_counter(), time.process_time()
    picks = chooses(student, teacher, num_steps).tolist()
    return {
        "wall_s": round(time.perf_counter() - wall, 3),
        "processor_s": round(time.process_time() - processor, 3),
        "extra_mib": round(_status_mib("VmHWM") - before, 1),
        "picks": picks,
    }


def apart(*arguments: object) -> Measurement:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, arguments)


def compare(kind: str, n: int, d: int, num_steps: int, direct_steps: int, rounds: int) -> Measurement:
    """Medians of rounds, and each round's ratio of whole calls that take equally many steps."""
    runs: dict[str, list[Measurement]] = {"ours": [], "ours_short": [], "direct": []}
    for _ in range(rounds):
        runs["ours"].append(apart("ours", kind, n, d, num_steps))
        runs["ours_short"].append(apart("ours", kind, n, d, direct_steps))
        runs["direct"].append(apart("direct", kind, n, d, direct_steps))
        print(kind, runs["direct"][-1], flush=True)
    middle = {
        form: {key: statistics.median(float(str(run[key])) for run in of_form) for key in list(of_form[0])[:3]}
        for form, of_form in runs.items()
    }
    ratios = [float(str(b["wall_s"])) / float(str(a["wall_s"])) for a, b in zip(runs["ours_short"], runs["direct"])]
    return {
        "candidates": len(candidates(*vectors(kind, n, d, seed=0))),
        "steps": {"ours": num_steps, "ours_short": direct_steps, "direct": direct_steps},
        "median": middle,
        "ratio_wall_at_equal_steps": {
            "median": round(statistics.median(ratios), 1),
            "all": [round(r, 1) for r in ratios],
        },
        "ratio_memory": round(middle["direct"]["extra_mib"] / middle["ours"]["extra_mib"], 1),
        "same_picks": all(a["picks"] == b["picks"] for a, b in zip(runs["ours_short"], runs["direct"])),
        "runs": runs,
    }


def agreement(num_classes: int, n: int, d: int) -> Measurement:
    """In how many classes all ten picks equal those of the direct form in float64."""
    same = {"ours": 0, "direct_float32": 0, "direct_float16": 0}
    for seed in range(num_classes):
        student, teacher = vectors("clustered", n, d, seed)
        exact = direct(student, teacher, 10, torch.float64)
        same["ours"] += torch.equal(select_prototypes(student, teacher), exact)
        same["direct_float32"] += torch.equal(direct(student, teacher, 10), exact)
        same["direct_float16"] += torch.equal(direct(student, teacher, 10, torch.float16), exact)
    return {"classes": num_classes, "instances": n, "channels": d, "equal_to_direct_float64": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=3000)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--direct-steps", type=int, default=2, help="steps of the direct form on clustered vectors")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    n, d = arguments.instances, arguments.channels
    result = {
        "command": f"measure.py --instances {n} --channels {d} --rounds {arguments.rounds} "
        f"--direct-steps {arguments.direct_steps}",
        "commit": current_commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "instances": n,
        "channels": d,
        "agreement": agreement(num_classes=30, n=100, d=64),
        "isotropic": compare("isotropic", n, d, 10, 1, 1),
        "clustered": compare("clustered", n, d, 10, arguments.direct_steps, arguments.rounds),
    }
    shown = {k: {i: j for i, j in v.items() if i != "runs"} if isinstance(v, dict) else v for k, v in result.items()}
    print(json.dumps(shown, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
