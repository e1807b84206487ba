"""The reading room: a page on which readers look at graded films, check them and mark their own grades."""
