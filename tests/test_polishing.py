"""The end of a search: near the best, by Nelder and Mead."""

import numpy as np
import pytest
import switchover as sw
from switchover.tuning import polishing
from switchover.tuning.space import Axis


def test_it_walks_to_the_bottom_of_a_bowl_within_its_budget_and_range():
    seen = []

    def bowl(point):
        seen.append(point)
        return (point[0] - 0.3) ** 2 + (point[1] - 1.2) ** 2

    polishing.polish(bowl, [0.5, 0.9], 60)
    assert len(seen) <= 60
    assert seen[0] == [0.5, 0.9]
    assert np.min(seen) >= 0 <= np.max(seen) <= 1
    assert min(list(seen), key=bowl) == pytest.approx([0.3, 1.0], abs=0.02)


def test_its_budget_is_a_share_and_none_where_it_would_not_do():
    assert [polishing.budget(*case) for case in ((200, 1), (2000, 3), (20, 1), (64, 0), (64, 7))] == [24, 24, 0, 0, 0]


@pytest.mark.parametrize("axis", [Axis("x", 0.1, 10.0, log=True), Axis("x", -2.0, 3.0)])
def test_a_share_of_a_range_is_what_it_came_from(axis):
    assert [axis.share(axis.at(share)) for share in (0.0, 0.2, 1.0)] == pytest.approx([0.0, 0.2, 1.0])


def test_the_last_candidates_are_near_the_best_and_the_search_has_as_many_as_asked_for():
    trace = sw.Trace.generate("16MiB", sw.workloads.HotCold(rate="20MB/s"), duration="4s", seed=3)
    given = {"objectives": ["blackout", "total_time"], "link": "200Mbit/s", "trials": 80, "starts": 4, "seed": 1}
    found = sw.tune(trace, {"policy.limit": "5ms..2s:log"}, **given)
    assert len(found.candidates) == 80
    limits = np.log([one.values["policy.limit"] for one in found.candidates])
    spread = [np.std(part) for part in (limits[:70], limits[70:])]
    assert spread[1] < 0.5 * spread[0]
    again = sw.tune(trace, {"policy.limit": "5ms..2s:log"}, **given)
    assert [one.values for one in again.candidates] == [one.values for one in found.candidates]


def test_it_finds_a_better_point_than_the_search_alone(monkeypatch):
    """The best limit lies between what was drawn: what follows moves toward it, and loses nothing."""
    trace = sw.Trace.generate("16MiB", sw.workloads.HotCold(rate="30MB/s"), duration="4s", seed=3)
    given = {"objectives": ["total_time"], "constraints": ["blackout <= 60ms"], "link": "300Mbit/s", "starts": 4}
    space = {"policy.limit": "5ms..2s:log", "link.rtt": "0s..5ms"}
    polished = sw.tune(trace, space, trials=96, seed=2, **given)
    monkeypatch.setattr(polishing, "budget", lambda trials, axes: 0)
    searched = sw.tune(trace, space, trials=84, seed=2, **given)
    assert polished.recommended.feasible
    assert polished.recommended.scores <= searched.recommended.scores
