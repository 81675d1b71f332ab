"""The portfolio: distillers that were best over recorded pairs, as the queue and the prior of a search. Torch-free.

``portfolio.yaml`` holds sums of parts with their gains on each recorded pair; the order in which they are tried, and
the opinion of each option, are computed from it when it is read, so that any pair can be left out.
"""

from autokd.portfolio.file import Portfolio, PortfolioRecord, load_portfolio, portfolio_text
from autokd.portfolio.greedy import greedy_order
from autokd.portfolio.prior import portfolio_prior

__all__ = [
    "Portfolio",
    "PortfolioRecord",
    "greedy_order",
    "load_portfolio",
    "portfolio_prior",
    "portfolio_text",
]
