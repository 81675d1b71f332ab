"""Independent NumPy computations of every preset: values and gradients, written from papers and public releases.

Nothing here imports torch or autokd. ``python -m tests.distill.peers.make`` computes what
``tests/distill/test_against_peers.py`` compares the presets with, and stores it beside this file.
"""
