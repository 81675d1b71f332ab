"""Monte Carlo tree search as an Optuna sampler, for any define-by-run objective.

The tree: a node is the sequence of categorical decisions that a trial has taken so far, an *action* is one choice of
one decision, a *rollout* is one trial: its actions, its numeric parameters and its value. One trial is one iteration
of the search:

1. **Select** (``sampler.select``). At each decision the sampler takes the action with the greatest score among those
   whose subtrees are not exhausted. The score is an upper confidence bound, UCT (Kocsis and Szepesvari, "Bandit based
   Monte-Carlo planning", ECML 2006):

       score(n, a) = Q(n, a) + c P(n, a) sqrt(ln N(n) / N(n, a)) + b h(a) / (1 + N(a))

   N counts visits. ``policy="uct"`` is the formula of Auto-KD (Li et al., ICCV 2023): Q is a mean reward, P a weight
   from all-moves-as-first statistics. ``policy="model"``, the default, sets P to 1 and draws Q from the posterior of a
   Gaussian process over trajectories (Bayesian UCT; compare Tesauro et al., UAI 2010). The last part is the progressive
   bias of a prior h (Chaslot et al., New Mathematics and Natural Computation 4, 2008).
2. **Expand** (``Tree.expand``). The first decision that no trial has met yet becomes a node. Below it every action has
   0 visits, so the same scores choose on.
3. **Simulate**. The objective runs with the chosen parameters; Optuna stores its value. Nothing of this package takes
   part. A running trial is *pending* (``Tree.set_pending``): it counts as a visit without a reward, so that parallel
   workers spread. That is the virtual loss of parallel tree search without its loss: unobserved samples (Liu et al.,
   "Watch the unobserved", WU-UCT, ICLR 2020).
4. **Backpropagate** (``Tree.backpropagate``). The next suggestion adds each trial that has ended to every node of its
   path and marks subtrees in which every leaf was visited as exhausted.

Numeric parameters are no levels of the tree: ``numeric`` chooses them, by the same value model or by a nested TPE.

The folder is complete in itself: it imports Optuna, NumPy and SciPy and nothing of AutoKD, so that OptunaHub can
publish it as one package.
"""

from .history import FORGET_ATTR
from .policy import UCT, ModelPolicy
from .sampler import MCTSSampler
from .view import TreeNode, read_tree

__all__ = ["FORGET_ATTR", "MCTSSampler", "ModelPolicy", "TreeNode", "UCT", "read_tree"]
