"""The last candidates of a search: near the best that was found, by the method of Nelder and Mead (SciPy)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from switchover import extra

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

SHARE = 8
"""One candidate in so many is for polishing."""

MOST = 24
"""Candidates for it at most: what is near is soon known."""

STEP = 0.04
"""First steps, as a share of a range."""


def budget(trials: int, axes: int) -> int:
    """How many of the candidates are for polishing: none where they do not do for as many ranges."""
    found = min(trials // SHARE, MOST)
    return found if 0 < axes <= found - 2 else 0


def polish(judge: Callable[[Sequence[float]], float], start: Sequence[float], evaluations: int) -> None:
    """Has `judge` look at points near `start`, which are shares of ranges from 0 to 1, so often at most."""
    optimize = extra.load("scipy.optimize", "tune")
    begin = np.clip(np.array(start, dtype=float), 0.0, 1.0)

    def cost(point: NDArray[np.float64]) -> float:
        return judge([float(share) for share in point])

    # Away from the nearer end, so that no first step is cut off.
    steps = np.where(begin > 0.5, -STEP, STEP)
    simplex = np.vstack([begin, begin + np.diag(steps)])
    optimize.minimize(
        cost,
        begin,
        method="Nelder-Mead",
        bounds=[(0.0, 1.0)] * len(begin),
        options={"maxfev": evaluations, "initial_simplex": simplex, "xatol": 1e-3, "fatol": 0.0},
    )
