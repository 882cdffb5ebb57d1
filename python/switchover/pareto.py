"""Which of many points nobody beats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def front(points: Sequence[Sequence[float]]) -> NDArray[Any]:
    """Whether each point is on the Pareto front: no other is as good in all and better in one. Less is better.

    A point with a value that is infinite or no number is never on it.

        >>> front([(1, 4), (2, 2), (3, 3), (4, 1)]).tolist()
        [True, True, False, True]
    """
    values = np.asarray(points, dtype=float).reshape(len(points), len(points[0]) if len(points) else 0)
    kept: NDArray[Any] = np.isfinite(values).all(axis=1)
    for number in np.flatnonzero(kept):
        no_worse = (values <= values[number]).all(axis=1)
        better = (values < values[number]).any(axis=1)
        kept[number] = not (no_worse & better).any()
    return kept
