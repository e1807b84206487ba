"""Hydra plugin: searches with Optuna."""
