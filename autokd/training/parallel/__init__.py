"""Trainings that several processes share: collectives, batch norms over ranks, the joint step."""
