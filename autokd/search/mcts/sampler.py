"""The tree search as an Optuna sampler: selection, and the state that it keeps between Optuna's calls."""

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
    """Monte Carlo tree search over the categorical decisions of a define-by-run objective.

    Every ``suggest_categorical`` is one level of the tree, so the value of a choice is learned in the context of the
    choices above it. The package's docstring gives the algorithm and its sources.

    The sampler keeps no state that the study does not have: the tree is built from the study's trials, and random
    numbers come from (seed, trial number, number of parameters so far) alone. So a new sampler on the same storage
    continues exactly as the first would have, and several processes may drive one study.

    A leaf is exhausted if a trial without free numbers has ended there; exhausted subtrees are not entered again. Once
    the whole tree is exhausted, the search continues over all choices.

    Args:
        seed: seed of all random numbers; None draws one.
        policy: tree policy: "model" (the default, best on planted trees), "uct" (Auto-KD's formula), or
            ``ModelPolicy(...)`` or ``UCT(...)`` with other settings.
        continuous: sampler of floats and integers: "model" (the policy's value model), "tpe" (a nested TPE, which sees
            the trials of the deepest context with enough of them), or an Optuna sampler, which sees the same contexts
            and keeps its own random numbers. None: "model" with the model policy, else "tpe".
        role: maps a decision's name to its role; decisions of one role share what is learned about equal choices. It
            must be a function at a module's top level, so that the sampler can be pickled. None: the name itself.
        failed_counts: True: a failed trial is a visit with the worst value seen, and it exhausts its leaf; False: it is
            left out. A failed trial with the user attribute ``mcts:forget`` is always left out.
        pruned_has_value: True: the value of a pruned trial is its last intermediate value; False: the worst value seen.
        prior: opinion of options before any trial, keyed by role and choice as in ``"distance='l2'"``, in arbitrary
            units about 0. Its weight falls with the trials that take the option. None: no opinion.

    Raises:
        ValueError: for an unknown policy, and at the first suggestion if the study has several objectives.
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
        self._current: tuple[str, int, Scorer] | None = None
        """Study, trial and scorer of the trial that is being asked."""
        # Threads of ``study.optimize(n_jobs=...)`` share the sampler, and the tree changes at each trial. Reentrant,
        # since a nested sampler may be one of these.
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        # A lock cannot be pickled; the scorer is made again from the study.
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_current")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _current=None, _lock=threading.RLock())

    def reseed_rng(self) -> None:
        """Do nothing: there is no random state, and trials of one study differ by their numbers."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Drop the last trial's scorer: a study of the same name may be another one by now."""
        with self._lock:
            self._current = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return no relative space: which decision comes next depends on the choices before it."""
        self._raise_error_if_multi_objective(study)
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing: every parameter is sampled when the objective asks for it."""
        self._raise_error_if_multi_objective(study)
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Suggest one parameter in the context of those that the trial has already.

        Args:
            study: the study, with one objective.
            trial: the running trial; parameters fixed by ``enqueue_trial`` are part of the context.
            param_name: the parameter.
            param_distribution: its distribution.

        Returns:
            The suggested value.

        Raises:
            ValueError: if the study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        with self._lock:
            scorer = self._get_scorer(study, trial)
            role = self._history.role
            trajectory = read_trajectory(trial.params, trial.distributions, role)
            # A source of its own for every parameter: a resumed search draws the numbers that the first would have.
            source = np.random.SeedSequence((self._seed, trial.number, len(trial.params)))
            rng = np.random.default_rng(source)
            if isinstance(param_distribution, CategoricalDistribution):
                indices = range(len(param_distribution.choices))
                actions = [make_action(param_name, param_distribution, i, role) for i in indices]
                scores = scorer.score_actions(trajectory, actions, rng)
                chosen = select(self._history.tree, trajectory.actions, actions, scores)
                return param_distribution.choices[chosen.choice]
            if self._continuous == "model":
                return choose_number(scorer, trajectory, param_name, param_distribution, rng)
            nested = None if self._continuous == "tpe" else self._continuous
            assert nested is None or isinstance(nested, BaseSampler)
            seed = int(source.generate_state(1)[0])
            above = trajectory.actions
            return sample_nested(nested, study, trial, param_name, param_distribution, self._history, above, seed)

    def _get_scorer(self, study: Study, trial: FrozenTrial) -> Scorer:
        """Return the trial's scorer, made at its first decision: other trials may end before its last one, and one
        trial must not be decided by two states of the tree."""
        if self._current is None or self._current[:2] != (study.study_name, trial.number):
            tree = self._history.update(study, asking=trial.number)
            self._current = (study.study_name, trial.number, self._policy.make_scorer(tree, self._prior))
        return self._current[2]


def _named_policy(name: Literal["model", "uct"]) -> Policy:
    if name not in ("model", "uct"):
        close = difflib.get_close_matches(str(name), ("model", "uct"), n=1)
        remedy = f"Did you mean {close[0]!r}?" if close else "Or pass a ModelPolicy(...) or a UCT(...)."
        raise ValueError(f"policy: {name!r} is not one of model, uct. {remedy}")
    return UCT() if name == "uct" else ModelPolicy()


def select(tree: Tree, above: tuple[Action, ...], actions: Sequence[Action], scores: np.ndarray) -> Action:
    """Return the action with the greatest score among those worth a visit.

    Actions whose subtrees are neither exhausted nor claimed by pending trials come first, then those that are not
    exhausted, then all: a suggestion is due even if the whole tree is exhausted.

    Args:
        tree: the tree.
        above: the trial's actions so far.
        actions: all actions of the decision.
        scores: one for each action.
    """
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
