"""Execution ahead of memory: post-copy, hybrid, and links that are lost on the way."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
import switchover as sw
from conftest import QUICK, runs_on


@pytest.fixture
def store():
    with sw.Guest("16MiB", sw.workloads.Kv(rate="20MB/s"), seed=7) as guest:
        yield guest


@pytest.mark.parametrize("to", [None, "here"])
@pytest.mark.parametrize("order", ["bubbling:pivots=4", "sequential", "recency", "none:patience=5"])
def test_post_copy_moves_a_store(store, order, to):
    report = sw.migrate(store, sw.PostCopy(prepaging=order), to=to, **QUICK)
    assert (report.outcome, report.reason, report.verified) == ("completed", "", True)
    runs_on(store)
    faults = report.faults
    assert faults["asked_pages"] + faults["pushed_pages"] == 4096
    assert sum(faults["total"]["buckets"]) == faults["total"]["count"] == faults["asked_pages"]
    assert report.fault_histogram("transfer").count("\n") == len(faults["transfer"]["buckets"]) - 1
    assert len(report.rounds) == 0
    assert sw.Report.from_json(report.to_json()) == report


def test_hybrid_goes_post_copy_when_the_policy_says_so(store):
    def policy(round, history):
        return sw.Decision.postcopy("enough") if round.index == 1 else sw.Decision.proceed()

    report = sw.migrate(store, sw.Hybrid(rounds=50), policy, **QUICK)
    assert (report.outcome, report.verified, len(report.rounds)) == ("completed", True, 2)
    assert report.faults is not None
    runs_on(store)


def test_only_a_hybrid_goes_post_copy(store):
    with pytest.raises(sw.PolicyError, match="pre-copy cannot"):
        sw.migrate(store, sw.PreCopy(), lambda r, h: sw.Decision.postcopy("now"), **QUICK)
    runs_on(store)


def test_a_guest_of_python_code_faults_too():
    def count(memory):
        memory[:8].view("uint64")[0] += 1
        memory[::4096] += 0

    with sw.Guest("4MiB", count) as guest:
        report = sw.migrate(guest, sw.PostCopy(), **QUICK)
        assert (report.outcome, report.verified) == ("completed", True)
        runs_on(guest)


def test_shared_memory_by_minor_faults():
    with sw.Guest("8MiB", sw.workloads.Kv(rate="20MB/s"), backing="memfd") as guest:
        assert sw.migrate(guest, sw.PostCopy(), **QUICK).verified
        runs_on(guest)


class Relay:
    """Forwards connections to `to`, and cuts all of them after so many bytes; later ones are left alone."""

    def __init__(self, to, limit):
        host, port = to.removeprefix("tcp:").rsplit(":", 1)
        self._to, self._left, self._pairs = (host, int(port)), limit, []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            pair = (near, socket.create_connection(self._to))
            self._pairs.append(pair)
            for ends in (pair, pair[::-1]):
                self._threads.append(threading.Thread(target=self._carry, args=ends, daemon=True))
                self._threads[-1].start()

    def _carry(self, source, sink):
        try:
            while data := source.recv(8192):
                sink.sendall(data)
                if self._left > 0:
                    self._left -= len(data)
                    if self._left <= 0:
                        self.cut()
        except OSError:
            pass
        for end in (source, sink):
            self._end(end)
            # What comes after a shutdown would be buffered, not refused.
            end.close()

    def _end(self, end):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        for pair in list(self._pairs):
            for end in pair:
                self._end(end)

    def close(self):
        self._end(self._server)
        self._server.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for pair in self._pairs:
            for end in pair:
                end.close()


def receiving(receiver, arrived):
    thread = threading.Thread(target=lambda: arrived.append(receiver.accept("10s")))
    thread.start()
    return thread


@pytest.mark.parametrize("by_itself", [False, True])
def test_a_lost_link_pauses_and_is_replaced(store, by_itself):
    arrived = []
    with sw.Receiver(stall_timeout="5s") as receiver:
        thread = receiving(receiver, arrived)
        relay = Relay(receiver.endpoint, 4 << 20)
        try:
            with sw.Migration(store, sw.PostCopy(), to=relay.endpoint, retry=int(by_itself), **QUICK) as m:
                assert list(m) == []
                if not by_itself:
                    assert m.paused
                    with pytest.raises(sw.UsageError, match="not over"):
                        _ = m.report
                    m.resume()
                    with pytest.raises(sw.UsageError, match="inside its context"):
                        m.resume()
                assert m.paused is None
            thread.join()
        finally:
            relay.close()
    assert (m.report.outcome, m.report.verified) == ("completed", True), m.report.reason
    assert m.report.faults["lost_links"] == 1
    assert [e["event"] for e in m.report.events if "link" in e["event"]] == ["link_lost", "link_back"]
    with arrived[0] as guest:
        runs_on(guest)


def test_a_link_lost_in_pre_copy_leaves_the_guest_and_is_tried_again(store):
    with sw.Receiver(stall_timeout="2s") as receiver:
        arrived = []

        def serve():
            with pytest.raises(sw.LinkError):
                receiver.accept("10s")
            arrived.append(receiver.accept("10s"))

        thread = threading.Thread(target=serve)
        thread.start()
        relay = Relay(receiver.endpoint, 4 << 20)
        try:
            report = sw.migrate(store, "pre-copy", "max-rounds:2", to=relay.endpoint, retry=1, **QUICK)
            thread.join()
        finally:
            relay.close()
    assert (report.outcome, report.verified) == ("completed", True), report.reason
    with arrived[0] as guest:
        runs_on(guest)


def test_a_destination_killed_before_execution_moves_leaves_the_guest_at_the_source(store):
    code = "import switchover as sw; r = sw.Receiver(); print(r.endpoint, flush=True); r.accept()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        endpoint = process.stdout.readline().strip()
        hybrid = sw.Hybrid(rounds=1000)
        killed = []

        def kill(round, decision):
            if not killed:
                killed.append(os.kill(process.pid, signal.SIGKILL))

        report = sw.migrate(store, hybrid, lambda r, h: sw.Decision.proceed(), to=endpoint, on_round=kill, **QUICK)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert report.outcome == "failed"
    assert isinstance(report.error, sw.LinkError)
    runs_on(store)


def test_a_paused_run_that_is_left_says_where_the_guest_is(store):
    arrived = []

    def take():
        with pytest.raises(sw.LinkError, match="is lost"):
            receiver.accept("10s")
        arrived.append(None)

    with sw.Receiver(stall_timeout="5s", recovery_timeout="300ms") as receiver:
        thread = threading.Thread(target=take)
        thread.start()
        relay = Relay(receiver.endpoint, 4 << 20)
        try:
            with sw.Migration(store, sw.PostCopy(), to=relay.endpoint, **QUICK) as m:
                assert list(m) == []
            thread.join()
        finally:
            relay.close()
    assert m.report.outcome == "failed"
    assert "waits at the destination" in m.report.reason
    assert arrived == [None]


def test_faults_are_seen_while_they_happen():
    seen = []
    with sw.Guest("32MiB", sw.workloads.Kv(rate="20MB/s")) as guest:
        link = sw.Link("200Mbit/s")
        report = sw.migrate(guest, sw.PostCopy(), link=link, on_faults=seen.append, **QUICK)
    assert report.outcome == "completed"
    assert seen
    assert 0 < seen[-1].median <= seen[-1].p99


def test_prepaging_orders_are_listed_and_checked():
    assert sw.prepaging.names() == ["bubbling", "sequential", "recency", "none"]
    assert sw.prepaging.of("none", patience=3) == "none:patience=3"
    with pytest.raises(sw.UsageError, match="did you mean `bubbling`"):
        sw.PostCopy(prepaging="bubling")
    with pytest.raises(sw.UsageError, match="from 1 to 1024"):
        sw.prepaging.of("bubbling", pivots=0)


def test_reserved_huge_pages_are_refused(store):
    try:
        guest = sw.Guest("16MiB", huge_pages="explicit")
    except sw.SwitchoverError:
        pytest.skip("no huge pages are set aside on this machine")
    with guest, pytest.raises(sw.UsageError, match="reserved huge pages"):
        sw.migrate(guest, sw.PostCopy(), **QUICK)


def run(command):
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_on_the_command_line():
    command = [sys.executable, "-m", "switchover", "run", "-m", "16MiB", "--warm-up", "5ms", "--verify"]
    for strategy in ("postcopy", "hybrid:rounds=1"):
        shown = run([*command, "-s", strategy, "--retry", "1", "-p", "max-rounds:9"])
        assert shown.returncode == 0, shown.stderr
        assert "remote faults:" in shown.stdout
        assert " us " in shown.stdout
    told = run([*command, "-s", "post-copy", "--json"])
    assert json.loads(told.stdout)["faults"]["asked_pages"] > 0
