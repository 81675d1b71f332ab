"""Trainings that several processes share: shards of batches, collectives, batch norms over ranks, the joint step."""
