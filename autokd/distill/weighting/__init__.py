"""Weights of a distiller's terms and levels, measured by their gradients."""
