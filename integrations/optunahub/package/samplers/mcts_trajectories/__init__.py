"""Monte Carlo tree search over define-by-run spaces, with a Gaussian process over trajectories as its tree policy."""

from .mcts import MCTSSampler, TreeNode, read_tree

__all__ = ["MCTSSampler", "TreeNode", "read_tree"]
