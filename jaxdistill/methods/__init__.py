"""Distillation methods; one file a family."""
