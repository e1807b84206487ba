"""Why a network says what it says: saliency maps of each backbone, and how much each of them counts."""

from legradnet.explain.methods import METHODS, Explanation, Target, explain

__all__ = ["METHODS", "Explanation", "Target", "explain"]
