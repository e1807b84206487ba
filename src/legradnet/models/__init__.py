"""Trained models as they are handed on: the shipped one in `oai/`, folders of others, and a hub's."""
