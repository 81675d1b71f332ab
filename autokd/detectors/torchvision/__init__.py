"""Detectors of torchvision: FCOS, RetinaNet and Faster R-CNN over a feature pyramid, under one adapter."""
