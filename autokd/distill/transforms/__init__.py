"""Transformations: what is done to both sides before they are compared.

One module a family, one class a row of the vocabulary.
"""
