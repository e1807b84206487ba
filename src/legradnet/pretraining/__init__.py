"""Pretraining: a trunk learns from films without grades."""
