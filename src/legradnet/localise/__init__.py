"""Knees in films of any size: where they are, how sure that is, and the squares that networks learned from."""
