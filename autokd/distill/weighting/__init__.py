"""Weights of a distiller's terms, levels and teachers, measured by their gradients."""
