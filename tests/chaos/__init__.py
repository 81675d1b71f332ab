"""Chaos: random faults over a real small search, and what must hold after ``--resume``.

``python -m tests.chaos`` runs it (``make chaos``); ``test_chaos_sample.py`` runs a few faults in ``make test``.
"""
