"""Samplers that choose the next spec: Monte Carlo tree search, and Optuna's own by name.

``mcts`` is the tree search, an Optuna sampler that imports nothing of AutoKD. Three modules connect Optuna with AutoKD:
``suggest`` (the space walked by a trial), ``samplers`` (samplers and pruners by the configuration's names) and
``prior`` (options counted over published distillers).
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
