"""Monte Carlo tree search as an Optuna sampler.

This folder is complete in itself: it imports Optuna, NumPy and SciPy, and nothing of AutoKD, so that it can be
published as one package of OptunaHub.
"""

from .history import FORGET_ATTR
from .policy import UCT, ModelPolicy
from .sampler import MCTSSampler
from .view import TreeNode, read_tree

__all__ = ["FORGET_ATTR", "MCTSSampler", "ModelPolicy", "TreeNode", "UCT", "read_tree"]
