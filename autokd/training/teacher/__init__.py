"""The teacher of a training: its weights, its outputs in the cache, and the outputs that a term asks for."""
