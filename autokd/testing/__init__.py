"""Conformance suites for operators, detector frameworks, samplers and runtimes, with pytest.

AutoKD's own tests run them; a third party runs them over its own part. Each module holds one suite.
"""
