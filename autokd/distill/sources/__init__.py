"""Sources: where knowledge comes from.

One module a family, one class a row of the vocabulary.
"""
