"""A training that several processes share: ranks, collectives, shared batch norms, one step of all."""
