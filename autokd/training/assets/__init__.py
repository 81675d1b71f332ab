"""Assets that the trainings of a process share, each made once: data and loaders, teachers and caches, students."""

from autokd.training.assets.training_assets import TrainingAssets

__all__ = ["TrainingAssets"]
