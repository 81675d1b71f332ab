"""The rows of the vocabulary, one module a family. ``autokd.spec.vocabulary`` joins them."""
