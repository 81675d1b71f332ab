"""Which spec to try next: Monte Carlo tree search as an Optuna sampler, and the other samplers by name.

``nodes`` is the tree, ``history`` builds it from a study, ``policy`` scores choices, ``model`` is the value model,
``numbers`` decides numeric parameters, ``mcts`` is the sampler over them all; ``view`` shows the tree. Those know
Optuna and nothing of AutoKD; ``suggest`` and ``samplers`` are where the two meet.
"""

from autokd.search.history import FORGET_ATTR
from autokd.search.mcts import MCTSSampler
from autokd.search.policy import UCT, ModelPolicy
from autokd.search.prior import published_prior
from autokd.search.samplers import TrialSeededSampler, decision_role, make_pruner, make_sampler
from autokd.search.suggest import suggest
from autokd.search.view import TreeNode, tree

__all__ = [
    "FORGET_ATTR",
    "MCTSSampler",
    "ModelPolicy",
    "TreeNode",
    "TrialSeededSampler",
    "UCT",
    "decision_role",
    "make_pruner",
    "make_sampler",
    "published_prior",
    "suggest",
    "tree",
]
