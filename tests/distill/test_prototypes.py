"""Prototype selection against the objective written out in NumPy, float64, from the published formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from autokd.distill.prototype_selection import select_prototypes
from autokd.errors import DistillError

Array = np.ndarray


def unit(x_ND: Array) -> Array:
    length = np.linalg.norm(x_ND, axis=1, keepdims=True)
    return x_ND / np.where(length > 0, length, 1)


def naive_candidates(a_ND: Array, b_ND: Array, bandwidth: float, quantile: float) -> Array:
    """Rows whose density, one double sum, is not below the quantile (equal up to rounding counts) in either space."""
    dense = np.ones(len(a_ND), dtype=bool)
    for x_ND in (a_ND, b_ND):
        density = np.array([sum(math.exp(-(((1 - x @ y) / bandwidth) ** 2)) for y in x_ND) for x in x_ND])
        dense &= density >= np.quantile(density, quantile) * (1 - 1e-13)
    return np.flatnonzero(dense)


def naive_picks(
    student: Tensor, teacher: Tensor, num: int = 10, alpha: float = 10.0, bandwidth: float = 0.1, quantile: float = 0.4
) -> list[int]:
    """The objective itself: residual vectors, and each candidate's error summed over instances and channels."""
    a_ND, b_ND = unit(student.double().numpy()), unit(teacher.double().numpy())
    rows = naive_candidates(a_ND, b_ND, bandwidth, quantile)
    left_a, left_b, picks = a_ND.copy(), b_ND.copy(), []
    for _ in range(min(num, len(rows))):
        errors, coefficients = np.full(len(rows), np.inf), {}
        for place, row in enumerate(rows):
            if row in picks:
                continue
            i_a, i_b = left_a @ a_ND[row], left_b @ b_ND[row]
            w_a = (alpha * (i_a + i_b) + i_a) / (1 + 2 * alpha)
            w_b = (alpha * (i_a + i_b) + i_b) / (1 + 2 * alpha)
            errors[place] = (
                ((np.outer(w_a, a_ND[row]) - left_a) ** 2).sum()
                + ((np.outer(w_b, b_ND[row]) - left_b) ** 2).sum()
                + alpha * ((w_a - w_b) ** 2).sum()
            )
            coefficients[place] = w_a, w_b
        # Errors of duplicates differ by rounding only; the first of them is meant.
        best = int(np.flatnonzero(errors <= errors.min() + 1e-12 * len(a_ND))[0])
        w_a, w_b = coefficients[best]
        left_a -= np.outer(w_a, a_ND[rows[best]])
        left_b -= np.outer(w_b, b_ND[rows[best]])
        picks.append(int(rows[best]))
    return picks


def pair(kind: str, seed: int, n: int, d_s: int, d_t: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Vectors of one kind of class, in both spaces."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    if kind == "isotropic":
        student, teacher = normal(n, d_s), normal(n, d_t)
    elif kind == "same":
        student = normal(n, d_s)
        teacher = student.clone()
    else:  # clusters that both spaces see alike, each with its own noise
        label = torch.randint(4, (n,), generator=g)
        spread = {"clustered": 0.3, "tight": 0.02, "duplicates": 0.3}[kind]
        student = normal(4, d_s)[label] + spread * normal(n, d_s)
        teacher = normal(4, d_t)[label] + spread * normal(n, d_t)
        if kind == "duplicates":
            copied = torch.randint(max(1, n // 3), (n,), generator=g)
            student, teacher = student[copied], teacher[copied]
    scale = torch.rand(n, 1, generator=g, dtype=torch.float64) * 5 + 0.1
    return (student * scale).to(dtype), (teacher * scale).to(dtype)


@pytest.mark.parametrize("kind", ["isotropic", "same", "clustered", "tight", "duplicates"])
@pytest.mark.parametrize(("n", "d_s", "d_t"), [(7, 4, 4), (40, 8, 8), (45, 3, 17), (64, 96, 24)])
def test_picks_equal_the_objective_written_out(kind: str, n: int, d_s: int, d_t: int):
    for seed in range(4):
        student, teacher = pair(kind, seed, n, d_s, d_t)
        assert select_prototypes(student, teacher).tolist() == naive_picks(student, teacher), f"seed {seed}"


@pytest.mark.parametrize(
    "settings",
    [
        dict(alpha=0.0),
        dict(alpha=1000.0),
        dict(num=1),
        dict(num=30),
        dict(bandwidth=0.5),
        dict(bandwidth=0.02),
        dict(quantile=0.0),
        dict(quantile=0.75),
    ],
)
def test_every_setting_takes_part_as_in_the_objective(settings: dict[str, float]):
    names = {"num": "num_prototypes", "bandwidth": "density_bandwidth", "quantile": "density_quantile"}
    for seed in range(4):
        student, teacher = pair("clustered", seed, 50, 12, 20)
        found = select_prototypes(student, teacher, **{names.get(k, k): v for k, v in settings.items()})
        assert found.tolist() == naive_picks(student, teacher, **settings), f"seed {seed}"


def test_one_step_without_coupling_chooses_the_atom_nearest_to_all_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    # Squared inner products: rows sum to 1 + 0.36 + 0, 0.36 + 1 + 0.64, 0 + 0.64 + 1.
    assert select_prototypes(vectors, vectors, 1, alpha=0.0, density_quantile=0.0).tolist() == [1]
    # What it leaves over: (0.64, -0.48), (0, 0), (-0.48, 0.36). Row 0: 0.64^2 + 0.48^2, row 2: 0.48^2 + 0.36^2.
    assert select_prototypes(vectors, vectors, 3, alpha=0.0, density_quantile=0.0).tolist() == [1, 0, 2]


def test_rows_of_low_density_are_left_out_however_much_they_explain():
    crowd = torch.tensor([[1.0, 0.0, 0.0]]).repeat(6, 1) + 0.01 * torch.eye(6)[:, :3]
    lone = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    vectors = torch.cat([lone, crowd])
    assert not {0, 1} & set(select_prototypes(vectors, vectors).tolist())
    assert {0, 1} <= set(select_prototypes(vectors, vectors, density_quantile=0.0).tolist())


def test_of_duplicates_the_first_is_chosen_before_its_copies():
    vectors = torch.eye(4).repeat_interleave(3, 0)
    assert select_prototypes(vectors, vectors, 4).tolist() == [0, 3, 6, 9]
    # Then nothing is left to explain, all scores are 0 within rounding, and the first free rows follow.
    assert select_prototypes(vectors, vectors, 7).tolist() == [0, 3, 6, 9, 1, 2, 4]


def test_no_row_is_chosen_twice_and_scale_does_not_matter():
    student, teacher = pair("tight", 0, 60, 8, 8, torch.float64)
    found = select_prototypes(student, teacher, 60).tolist()
    assert len(set(found)) == len(found) > 10
    scaled = select_prototypes(student * 1e-250, teacher * 1e250, 60)
    assert scaled.tolist() == found


def test_one_instance_is_its_own_prototype_and_none_have_none():
    assert select_prototypes(torch.ones(1, 3), torch.ones(1, 5)).tolist() == [0]
    none = select_prototypes(torch.ones(0, 3), torch.ones(0, 5))
    assert none.shape == (0,)
    assert none.dtype == torch.int64


@pytest.mark.parametrize("n", range(2, 15))
def test_a_small_class_has_at_least_one_prototype(n: int):
    for seed in range(20):
        student, teacher = pair("isotropic", seed, n, 2, 2)
        found = select_prototypes(student, teacher).tolist()
        assert 1 <= len(found) <= min(n, 10)


def test_if_no_row_is_dense_in_both_spaces_every_row_is_a_candidate():
    near, far = [[1.0, 0.0], [1.0, 0.1]], [[-1.0, 0.2], [0.0, -1.0]]
    student, teacher = torch.tensor([*near, *far]), torch.tensor([*far, *near])
    assert naive_candidates(unit(student.numpy()), unit(teacher.numpy()), 0.1, 0.4).size == 0
    assert sorted(select_prototypes(student, teacher).tolist()) == [0, 1, 2, 3]


def test_rows_of_zeros_are_never_chosen_and_change_no_other_choice():
    student, teacher = pair("clustered", 1, 30, 6, 6)
    before = select_prototypes(student, teacher, density_quantile=0.0)
    with_zeros = [torch.cat([torch.zeros(5, 6), x]) for x in (student, teacher)]
    assert torch.equal(select_prototypes(*with_zeros, density_quantile=0.0), before + 5)
    student[before[0]] = 0  # in one space only
    assert before[0] not in select_prototypes(student, teacher, density_quantile=0.0)
    assert select_prototypes(torch.zeros(4, 3), torch.zeros(4, 3)).tolist() == []


def test_half_precision_and_gradients_neither_change_nor_stop_the_choice():
    student, teacher = pair("clustered", 2, 50, 8, 8, torch.bfloat16)
    expected = naive_picks(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert select_prototypes(student.requires_grad_(), teacher).tolist() == expected
    assert select_prototypes(student.float(), teacher.double()).tolist() == expected


def test_vectors_are_left_as_they_were():
    student, teacher = pair("clustered", 3, 50, 8, 8, torch.float64)
    copies = student.clone(), teacher.clone()
    select_prototypes(student, teacher)
    assert torch.equal(student, copies[0])
    assert torch.equal(teacher, copies[1])


def test_density_in_chunks_equals_density_at_once(monkeypatch: pytest.MonkeyPatch):
    student, teacher = pair("clustered", 4, 100, 8, 8)
    monkeypatch.setattr("autokd.distill.prototype_selection._CHUNK_NUMBERS", 700)  # 15 chunks, the last one not full
    assert select_prototypes(student, teacher).tolist() == naive_picks(student, teacher)


def test_a_thousand_instances_hold_no_tensor_of_candidates_by_channels_by_instances():
    student, teacher = pair("isotropic", 0, 1000, 128, 128)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        found = select_prototypes(student, teacher)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    tables = 2 * 1000 * 1000 * 8
    assert tables <= peak < 2 * tables  # isotropic in 128 dimensions: every row is a candidate; the direct form: 2 GB
    assert len(found) == 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_chooses_as_the_cpu_does():
    for seed in range(4):
        student, teacher = pair("duplicates", seed, 200, 32, 16)
        found = select_prototypes(student.cuda(), teacher.cuda())
        assert found.is_cuda
        assert found.tolist() == select_prototypes(student, teacher).tolist()


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (dict(num_prototypes=0), "num_prototypes is 0"),
        (dict(alpha=-1.0), "alpha is -1"),
        (dict(alpha=math.nan), "alpha is nan"),
        (dict(density_bandwidth=0.0), "density_bandwidth is 0"),
        (dict(density_quantile=1.5), "density_quantile is 1.5"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, float], found: str):
    with pytest.raises(DistillError, match=f"{found}.*allowed"):
        select_prototypes(torch.ones(3, 2), torch.ones(3, 2), **settings)


@pytest.mark.parametrize(
    ("student", "teacher", "found"),
    [
        (torch.ones(3, 2), torch.ones(4, 2), "3 student vectors.*4 teacher vectors"),
        (torch.ones(3), torch.ones(3, 2), r"student_vectors is \(3,\)"),
        (torch.ones(3, 2), torch.ones(3, 0), r"teacher_vectors is \(3, 0\)"),
        (torch.ones(3, 2), torch.ones(3, 2, dtype=torch.int64), "torch.int64"),
        (torch.ones(3, 2), torch.ones(3, 2, device="meta"), "cpu.*meta"),
        (torch.ones(2, 2), torch.tensor([[1, 2], [math.nan, 1]]), "1 of 2 teacher_vectors.*row 1"),
        (torch.tensor([[math.inf, 2], [math.nan, 1]]), torch.ones(2, 2), "2 of 2 student_vectors.*row 0"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused_by_name(student: Tensor, teacher: Tensor, found: str):
    with pytest.raises(DistillError, match=found):
        select_prototypes(student, teacher)
