"""The pages of the service."""

from __future__ import annotations

from fastapi import FastAPI

from autokd.service.service import Service


def add_pages(app: FastAPI, service: Service) -> None:
    """Add the pages.

    Args:
        app: application.
        service: the service.
    """
