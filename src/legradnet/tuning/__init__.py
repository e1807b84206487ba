"""Hyperparameter search with Optuna that outlives kills: studies, trials, and what comes out of them."""
