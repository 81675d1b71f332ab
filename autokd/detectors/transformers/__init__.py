"""Hugging Face transformers as a detector framework: DETR-likes and YOLOS behind ``AutoModelForObjectDetection``."""
