"""How good a grader is: numbers with confidence intervals, figures, and a report."""
