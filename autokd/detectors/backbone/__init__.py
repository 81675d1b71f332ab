"""Backbones alone as teachers: feature extractors of transformers and torchvision, without a head."""
