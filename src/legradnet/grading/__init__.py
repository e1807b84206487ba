"""Grading films with a trained network."""
