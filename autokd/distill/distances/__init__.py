"""Distances: how far the student is from the teacher.

One module a family, one class a row of the vocabulary.
"""
