"""Checkpoints within trainings: the file, the state that it holds, when it is written, and SIGTERM."""
