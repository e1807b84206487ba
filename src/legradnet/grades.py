"""How a grade follows from probabilities, and the arrays that both are kept in."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from legradnet.errors import UserError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Rule = Literal["mode", "median"]

NO_GRADE = "No grade follows from probabilities that are not finite."


def grades_of(probabilities: Floats, rule: Rule) -> Ints:
    """The grades [N] that stand for `probabilities` [N, K]: their mode, or their median (as `losses` defines them).

    Raises:
        UserError: Probabilities that are not finite, of which either would be a grade.
    """
    if not np.isfinite(probabilities).all():
        raise UserError(NO_GRADE)
    if rule == "mode":
        return probabilities.argmax(axis=1).astype(np.int64)
    at_most = probabilities.astype(np.float64).cumsum(axis=1)[:, :-1]
    return (at_most < 0.5).sum(axis=1).astype(np.int64)
