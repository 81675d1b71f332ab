"""The rows of the vocabulary: one folder a kind of operator, one table a family.

The table ``tables/KIND/FAMILY.py`` holds the rows of the classes in ``autokd/distill/KIND/FAMILY.py``.
"""
