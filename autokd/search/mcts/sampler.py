"""Monte Carlo tree search as an Optuna sampler, for any define-by-run objective."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from .history import History, Role, make_action, read_trajectory
from .numeric import choose_number, sample_nested
from .policy import UCT, ModelPolicy, Policy, Prior, Scorer
from .tree import Action, Node, Tree


class MCTSSampler(BaseSampler):
    """Walks the tree of a study's categorical decisions; knows nothing but Optuna.

    Every ``suggest_categorical`` is one level: a node is the sequence of such decisions so far in the trial, so the
    value of a choice is learned in the context of those above it. The tree is rebuilt from the study's history
    (each finished trial folded once, running ones laid over as visits without a value), and random numbers come from
    (seed, trial number, number of parameters so far) alone. So a sampler made anew over the same storage goes on
    exactly as the first would, and several processes may drive one study.

    Exhausted subtrees are not entered again: a leaf is closed when a trial without free numbers has ended there.
    When everything is closed, the search goes on over all choices as if nothing were.

    Args:
        seed: of all random numbers; None draws one.
        policy: "model" (the default, best on planted trees), "uct" (the formula of Auto-KD), or an object with
            settings of its own, ``ModelPolicy(...)`` or ``UCT(...)``.
        continuous: who suggests floats and integers: "model" (the policy's own value model), "tpe" (a nested TPE
            that sees the trials of the deepest context with enough of them), or any Optuna sampler, which then
            sees the same contexts but keeps its own random numbers. None: "model" with the model policy,
            else "tpe".
        role: gives the role of a decision from its name (a function at a module's top level, so that it can be
            pickled); decisions of one role share what is known of equal choices. None: the name itself.
        failed_counts: whether a failed trial is a visit with the worst value seen (and closes its leaf), or is
            left out. A failed trial with the user attribute ``mcts:forget`` is always left out.
        pruned_has_value: whether a pruned trial has its last intermediate value, or the worst value seen.
        prior: what is thought of options before any trial (``published_prior``), by role and choice as
            ``"distance='l2'"``; it fades as options are tried. None: nothing is.

    Raises:
        ValueError: for an unknown policy, and from a study with more than one objective.
    """

    def __init__(
        self,
        seed: int | None = None,
        *,
        policy: Literal["model", "uct"] | Policy = "model",
        continuous: Literal["model", "tpe"] | BaseSampler | None = None,
        role: Role | None = None,
        failed_counts: bool = True,
        pruned_has_value: bool = True,
        prior: Prior | None = None,
    ) -> None:
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._policy = _named_policy(policy) if isinstance(policy, str) else policy
        default = "model" if isinstance(self._policy, ModelPolicy) else "tpe"
        self._continuous = default if continuous is None else continuous
        self._history = History(role=role, failed_counts=failed_counts, pruned_has_value=pruned_has_value)
        self._prior = dict(prior or {})
        self._ask: tuple[str, int, Scorer] | None = None
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_ask")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _ask=None, _lock=threading.RLock())

    def reseed_rng(self) -> None:
        """Nothing to do: no random state is kept, and trials of one study differ by their numbers."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        with self._lock:
            self._ask = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._raise_error_if_multi_objective(study)
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Suggest one parameter, in the context of those that ``trial`` has already (fixed ones included)."""
        self._raise_error_if_multi_objective(study)
        with self._lock:
            scorer = self._get_scorer(study, trial)
            trajectory = read_trajectory(trial.params, trial.distributions, self._history.role)
            source = np.random.SeedSequence((self._seed, trial.number, len(trial.params)))
            rng = np.random.default_rng(source)
            if isinstance(param_distribution, CategoricalDistribution):
                indices = range(len(param_distribution.choices))
                actions = [make_action(param_name, param_distribution, i, self._history.role) for i in indices]
                chosen = select(
                    self._history.tree, trajectory[0], actions, scorer.score_actions(trajectory, actions, rng)
                )
                return param_distribution.choices[chosen.choice]
            if self._continuous == "model":
                return choose_number(scorer, trajectory, param_name, param_distribution, rng)
            nested = None if self._continuous == "tpe" else self._continuous
            assert nested is None or isinstance(nested, BaseSampler)
            seed = int(source.generate_state(1)[0])
            return sample_nested(
                nested, study, trial, param_name, param_distribution, self._history, trajectory[0], seed
            )

    def _get_scorer(self, study: Study, trial: FrozenTrial) -> Scorer:
        """The scorer for this trial: made at its first decision, kept for the others."""
        if self._ask is None or self._ask[:2] != (study.study_name, trial.number):
            tree = self._history.update(study, asking=trial.number)
            self._ask = (study.study_name, trial.number, self._policy.make_scorer(tree, self._prior))
        return self._ask[2]


def _named_policy(name: Literal["model", "uct"]) -> Policy:
    if name not in ("model", "uct"):
        close = difflib.get_close_matches(str(name), ("model", "uct"), n=1)
        remedy = f"Did you mean {close[0]!r}?" if close else "Or pass a ModelPolicy(...) or a UCT(...)."
        raise ValueError(f"policy: {name!r} is not one of model, uct. {remedy}")
    return UCT() if name == "uct" else ModelPolicy()


def select(tree: Tree, above: tuple[Action, ...], actions: Sequence[Action], scores: np.ndarray) -> Action:
    """The action with the greatest score among those neither closed nor busy; failing that, among those not
    closed; failing that, among all."""
    node = tree.node_at(above)
    children = [None if node is None else node.child(action) for action in actions]
    for is_shut in (_is_claimed, _is_exhausted):
        free = [i for i, child in enumerate(children) if not is_shut(child)]
        if free:
            return actions[max(free, key=lambda i: float(scores[i]))]
    return actions[int(np.argmax(scores))]


def _is_claimed(node: Node | None) -> bool:
    return node is not None and node.is_claimed


def _is_exhausted(node: Node | None) -> bool:
    return node is not None and node.is_exhausted
