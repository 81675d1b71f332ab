"""Serve studies with optuna-dashboard, reading through storage and report only."""

from autokd_dashboard.publish import publish_tree
from autokd_dashboard.server import DashboardServer, serve

__all__ = ["DashboardServer", "publish_tree", "serve"]
