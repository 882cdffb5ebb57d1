"""Medians and how sure they are: percentile bootstrap intervals of 95 %."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from switchover import extra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEAST_RUNS = 5
"""With fewer runs there is no interval, and so no rank: the extremes of four hold the median in 7 of 8 cases."""

RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A median, or another statistic, and its interval.

    Attributes:
        median: Of the runs, or the statistic; infinite where half of them did not complete, not a number where nothing
            is known.
        low: The interval's lower end; minus infinity with fewer than five runs.
        high: Its upper end.
        runs: How many went into it.
    """

    median: float
    low: float
    high: float
    runs: int

    def below(self, other: Estimate) -> bool:
        """Whether it is surely less: the intervals do not overlap.

        >>> Estimate(1, 0.9, 1.1, 5).below(Estimate(2, 1.5, 2.5, 5)), Estimate(1, 0.9, 1.6, 5).below(
        ...     Estimate(2, 1.5, 2.5, 5)
        ... )
        (True, False)
        """
        return self.high < other.low


def median(values: Sequence[float], seed: int = 0) -> Estimate:
    """The median of runs. Values that are no numbers are left out; infinite ones are runs that did not complete.

    >>> median([1.0, 2.0, 3.0, 4.0, 5.0])
    Estimate(median=3.0, low=1.0, high=5.0, runs=5)
    """
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return Estimate(math.nan, math.nan, math.nan, 0)
    middle = float(np.median(known))
    if len(known) < LEAST_RUNS:
        return Estimate(middle, -math.inf, math.inf, len(known))
    return Estimate(middle, *_interval((known,), _median, seed), len(known))


def ratio(over: Sequence[float], under: Sequence[float], seed: int = 0) -> Estimate:
    """How many times as large the median of `over` is as that of `under`.

    >>> ratio([2.0] * 5, [1.0] * 5)
    Estimate(median=2.0, low=2.0, high=2.0, runs=5)
    """
    one, other = (np.array([value for value in values if not math.isnan(value)]) for values in (over, under))
    runs = min(len(one), len(other))
    if runs == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    middle = float(_ratio(one, other))
    if runs < LEAST_RUNS:
        return Estimate(middle, 0.0, math.inf, runs)
    return Estimate(middle, *_interval((one, other), _ratio, seed), runs)


def _median(values: NDArray[Any], axis: int = -1) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.median(values, axis=axis))


def _ratio(over: NDArray[Any], under: NDArray[Any], axis: int = -1) -> NDArray[Any]:
    """Nothing against nothing, and never against never, are alike."""
    one, other = _median(over, axis), _median(under, axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(one == other, 1.0, one / other))


def _interval(data: tuple[NDArray[Any], ...], statistic: Any, seed: int, paired: bool = False) -> tuple[float, float]:
    """SciPy resamples; the quantiles are those of resamples, outwards, since infinities cannot be interpolated."""
    stats = extra.load("scipy.stats", "compare")
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = stats.bootstrap(
            data,
            statistic,
            paired=paired,
            n_resamples=RESAMPLES,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    low = np.quantile(drawn, 0.025, method="lower")
    high = np.quantile(drawn, 0.975, method="higher")
    return float(low), float(high)


def of(values: NDArray[Any], statistic: Any, seed: int = 0) -> Estimate:
    """Any statistic of finite values, such as their mean: a function of an array and its `axis`.

    >>> of(np.array([2.0] * 6), np.mean)
    Estimate(median=2.0, low=2.0, high=2.0, runs=6)
    """
    middle = float(statistic(values))
    if len(values) < LEAST_RUNS:
        return Estimate(middle, -math.inf, math.inf, len(values))
    return Estimate(middle, *_interval((values,), statistic, seed), len(values))


def paired_ratio(over: NDArray[Any], under: NDArray[Any], statistic: Any, seed: int = 0) -> Estimate:
    """How many times as large a statistic is of one of two arrays that belong together, value by value.

    >>> paired_ratio(np.array([2.0] * 6), np.array([1.0] * 6), np.mean)
    Estimate(median=2.0, low=2.0, high=2.0, runs=6)
    """

    def ratio_of(one: NDArray[Any], other: NDArray[Any], axis: int = -1) -> NDArray[Any]:
        top, bottom = statistic(one, axis=axis), statistic(other, axis=axis)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(top == bottom, 1.0, top / bottom))

    middle = float(ratio_of(over, under))
    if len(over) < LEAST_RUNS:
        return Estimate(middle, 0.0, math.inf, len(over))
    return Estimate(middle, *_interval((over, under), ratio_of, seed, paired=True), len(over))
