import copy
import inspect
import pickle

import pytest
import switchover as sw
from switchover.part import Part

MODULES = [sw.codecs, sw.contents, sw.policies, sw.strategies, sw.trackers, sw.workloads]
NEEDS = {"any-of": {"policies": [sw.policies.MaxRounds(3)]}}
PARTS = [part for module in MODULES for part in module.registry]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.kind}-{part.name}")
def test_every_part_has_a_class_with_signature_and_docs(part):
    made = part(**NEEDS.get(part.name, {}))
    assert isinstance(made, Part)
    assert made.spec()["name"] == part.name
    assert list(inspect.signature(part).parameters)[: len(part.knobs)] == [knob.name for knob in part.knobs]
    assert all(f"{knob.name}: " in part.__doc__ for knob in part.knobs)
    assert part.__doc__.splitlines()[0]
    if part.name not in NEEDS:
        assert made.spec() == {"name": part.name}
        assert [getattr(made, knob.name) for knob in part.knobs] == [knob.default for knob in part.knobs]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.kind}-{part.name}")
def test_parts_are_values(part):
    made = part(**NEEDS.get(part.name, {}))
    assert made == made.replace()
    assert hash(made) == hash(made.replace())
    assert copy.copy(made) == made
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_unknown_names_are_answered_with_the_nearest(module):
    name = module.names()[0]
    with pytest.raises(sw.UsageError, match=f"did you mean `{name}`"):
        module.get(name + "x" if len(name) < 5 else name[:-1])
    with pytest.raises(AttributeError):
        _ = module.NoSuchPart


def test_unknown_knobs_are_answered_with_the_nearest():
    with pytest.raises(sw.UsageError, match="Sweep has no knob `rat`; did you mean `rate`"):
        sw.workloads.Sweep(rat=3)


def test_quantities_are_read_by_the_knobs_unit():
    assert sw.policies.DowntimeLimit("300ms") == sw.policies.DowntimeLimit(limit=0.3)
    assert sw.workloads.Sweep(rate="1Gbit/s").rate == 1.25e8
    with pytest.raises(sw.UsageError, match="Sweep: rate must be bytes per second"):
        sw.workloads.Sweep(rate="300ms")
    with pytest.raises(sw.UsageError, match="from 0 to 2000"):
        sw.policies.DowntimeLimit("3h")
    with pytest.raises(sw.UsageError, match="given twice"):
        sw.policies.DowntimeLimit(1, limit=2)
    with pytest.raises(sw.UsageError, match="takes 1 unnamed"):
        sw.policies.MaxRounds(1, "abort")


def test_parts_as_text():
    assert sw.workloads.parse("sweep:rate=200MB/s,share=0.5") == sw.workloads.Sweep(rate=2e8, share=0.5)
    assert sw.policies.parse("downtime-limit:300ms") == sw.policies.DowntimeLimit(0.3)
    assert repr(sw.policies.DowntimeLimit(0.3)) == "DowntimeLimit(limit='300ms')"
    assert repr(sw.policies.DowntimeLimit(0.30000001)) == "DowntimeLimit(limit=0.30000001)"


def test_strategies_carry_their_codec():
    assert sw.PreCopy(codec="raw").codec == sw.codecs.Raw()
    assert sw.PreCopy().replace(codec="raw") == sw.PreCopy(codec="raw") != sw.PreCopy()
    with pytest.raises(sw.UsageError, match="clear must be early, skip or late"):
        sw.PreCopy(clear="sometimes")
    with pytest.raises(sw.UsageError, match="no codec is called"):
        sw.PreCopy(codec="zreo")


def test_links():
    link = sw.Link("1Gbit/s", rtt="0.5ms", outages=[("1s", "200ms")], channels=2)
    assert link.spec()["bandwidth"] == 1.25e8
    assert link.spec()["outages"] == [{"at": 1.0, "duration": 0.2}]
    for wrong in ({"bandwidth": "fast"}, {"transport": "carrier pigeon"}, {"outages": [3]}, {"channels": 1.5}):
        with pytest.raises(sw.UsageError, match="Link"):
            sw.Link(**wrong)


def test_trackers_say_why_they_are_not_there():
    assert sw.trackers.availability()[sw.trackers.best()] is None
    for name, reason in sw.trackers.availability().items():
        if reason is not None:
            with pytest.raises(sw.TrackerUnavailable) as caught:
                with sw.Guest("1MiB", sw.workloads.Sweep()) as guest:
                    sw.trackers.get(name).arm(guest)
            assert (caught.value.tracker, caught.value.reason) == (name, reason)
