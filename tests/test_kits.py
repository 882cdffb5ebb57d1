"""The conformance kits over everything in the registries: a part that is added there is tested here."""

import pytest
import switchover as sw
from conftest import workload_for
from switchover.testing import CodecTestCase, PolicyTestCase, TrackerTestCase

WORKING = [name for name, reason in sw.trackers.availability().items() if reason is None]


@pytest.mark.parametrize("name", sw.codecs.names(), scope="class")
class TestCodecs:
    @pytest.fixture(autouse=True)
    def _kit(self, name):
        self.kit = type("Kit", (CodecTestCase,), {"make": lambda _: sw.codecs.get(name)})()

    @pytest.mark.parametrize("check", [check for check in dir(CodecTestCase) if check.startswith("test_")])
    def test_conforms(self, name, check):
        getattr(self.kit, check)()


@pytest.mark.parametrize("name", WORKING, scope="class")
class TestTrackers:
    @pytest.mark.parametrize("check", [check for check in dir(TrackerTestCase) if check.startswith("test_")])
    def test_conforms(self, name, check):
        members = {"make": lambda _: sw.trackers.get(name), "workload": workload_for(name)}
        kit = type("Kit", (TrackerTestCase,), members)()
        getattr(kit, check)()


def examples():
    anyof = sw.policies.AnyOf(policies=[sw.policies.DowntimeLimit("300ms"), sw.policies.MaxRounds(30)])
    return {
        name: (lambda name=name: anyof.replace() if name == "any-of" else sw.policies.get(name))
        for name in sw.policies.names()
    }


@pytest.mark.parametrize("name", sw.policies.names(), scope="class")
class TestPolicies:
    @pytest.mark.parametrize("check", [check for check in dir(PolicyTestCase) if check.startswith("test_")])
    def test_conforms(self, name, check):
        make = examples()[name]
        kit = type("Kit", (PolicyTestCase,), {"make": lambda _: make()})()
        getattr(kit, check)()


class TestMine(PolicyTestCase):
    """As a user has it."""

    def make(self):
        def patient(round, history):
            if round.index >= 3 and round.remaining_bytes > history[-1].remaining_bytes:
                return sw.Decision.abort("no longer shrinking")
            return sw.Decision.proceed()

        return patient | sw.policies.MaxRounds(9)


class TestKitsBite:
    """A kit that passes everything is worth nothing."""

    def test_a_codec_that_loses_a_byte(self):
        class Lossy(CodecTestCase):
            def make(self):
                class Codec:
                    encode = staticmethod(lambda page, base=None: page[:-1])
                    decode = staticmethod(lambda data, base=None: data[:4095] + b"\0")

                return Codec()

        with pytest.raises(AssertionError):
            Lossy().test_pages_come_back_as_they_were()

    def test_a_tracker_that_misses_writes(self):
        class Blind(TrackerTestCase):
            def make(self):
                class Tracker(type(sw.trackers.get("software"))):
                    def harvest(self, first=0, end=None):
                        found = super().harvest(first, end).copy()
                        found[::7] = False
                        return found

                return Tracker()

        with pytest.raises(AssertionError):
            Blind().test_what_changed_is_dirty_until_it_is_harvested()
        with pytest.raises(AssertionError):
            Blind().test_no_write_is_missed_while_the_guest_runs()

    def test_a_policy_that_draws_lots(self):
        import random

        class Dice(PolicyTestCase):
            def make(self):
                return lambda round, history: sw.Decision.throttle(random.uniform(0, 99), "luck")

        with pytest.raises(AssertionError):
            Dice().test_the_same_rounds_have_the_same_decisions()
