"""Which spec to try next: Monte Carlo tree search as an Optuna sampler, and the other samplers by name.

``mcts`` is the tree search; it knows Optuna and nothing of AutoKD. ``suggest``, ``samplers`` and ``prior`` are where
the two meet.
"""

from autokd.search.mcts import FORGET_ATTR, UCT, MCTSSampler, ModelPolicy, TreeNode, read_tree
from autokd.search.prior import published_prior
from autokd.search.samplers import TrialSeededSampler, decision_role, make_pruner, make_sampler
from autokd.search.suggest import suggest

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
    "read_tree",
    "suggest",
]
