"""Destinations in other processes, and peers that are none."""

import socket
import threading
from contextlib import contextmanager

import pytest
import switchover as sw
from conftest import QUICK, runs_on


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_to_a_process_of_its_own(guest, transport):
    link = sw.Link(transport=transport, channels=2)
    report = sw.migrate(guest, policy="max-rounds:2", to="process", link=link, cool_down="20ms", **QUICK)
    assert (report.outcome, report.reason, report.verified) == ("completed", "", True)
    assert report.guest_cost["after"] > 0
    runs_on(guest)
    guest.pause()
    assert guest.progress == guest.progress
    guest.resume()
    runs_on(guest)
    with pytest.raises(sw.UsageError, match="process"):
        _ = guest.memory
    with pytest.raises(sw.UsageError, match="process"):
        sw.migrate(guest)


def test_a_run_to_a_process_that_is_given_up(guest):
    report = sw.migrate(guest, policy=sw.policies.MaxRounds(1, then="abort"), to="process", **QUICK)
    assert report.outcome == "aborted"
    runs_on(guest)


def test_to_a_receiver_of_ours(guest):
    arrived = []
    with sw.Receiver("127.0.0.1:0", stall_timeout="5s") as receiver:
        thread = threading.Thread(target=lambda: arrived.append(receiver.accept("10s")))
        thread.start()
        report = sw.migrate(guest, policy="max-rounds:2", to=receiver.endpoint, **QUICK)
        thread.join()
    assert report.outcome == "completed"
    with arrived[0] as here:
        runs_on(here)
        assert here.memory_bytes == 16 << 20
    with pytest.raises(sw.UsageError, match="has moved to tcp:127"):
        guest.start()


def test_nobody_listens(guest, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for to, match in ((f"127.0.0.1:{port}", "nothing listens"), (f"unix:{tmp_path}/s", "no such socket")):
        with pytest.raises(sw.LinkError, match=match) as caught:
            sw.migrate(guest, to=to, **QUICK)
        assert isinstance(caught.value.__cause__, OSError)
    guest.start()
    runs_on(guest)


@contextmanager
def peer(talk):
    """A destination that does nothing but `talk`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def rubbish(connection):
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    while connection.recv(1 << 16):
        pass


def another_version(connection):
    connection.sendall(b"SW\x09\x01" + bytes(20))
    while connection.recv(1 << 16):
        pass


def silence(connection):
    while connection.recv(1 << 16):
        pass


@pytest.mark.parametrize(
    ("talk", "match"),
    [(rubbish, "no section"), (another_version, "version 9"), (silence, "stalled"), (lambda _: None, "closed|broke")],
)
def test_a_peer_that_is_no_destination_is_a_failure_with_its_reason(guest, talk, match):
    import re

    with peer(talk) as endpoint:
        report = sw.migrate(guest, policy="max-rounds:2", to=endpoint, **{**QUICK, "stall_timeout": "300ms"})
    assert report.outcome == "failed"
    assert re.search(match, report.reason), report.reason
    with pytest.raises((sw.LinkError, sw.StreamError)):
        report.raise_for_outcome()
    runs_on(guest)


def test_a_source_that_is_none_leaves_the_receiver_ready(guest):
    def shout(endpoint):
        host, port = endpoint.removeprefix("tcp:").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"x" * 100)
            connection.recv(1000)

    with sw.Receiver(stall_timeout="2s") as receiver:
        thread = threading.Thread(target=shout, args=(receiver.endpoint,))
        thread.start()
        with pytest.raises(sw.StreamError) as caught:
            receiver.accept("5s")
        assert caught.value.offset == 0
        thread.join()
        arrived = []
        thread = threading.Thread(target=lambda: arrived.append(receiver.accept("10s")))
        thread.start()
        assert sw.migrate(guest, policy="max-rounds:1", to=receiver.endpoint, **QUICK).outcome == "completed"
        thread.join()
        arrived[0].close()


def test_waiting_ends():
    with sw.Receiver() as receiver:
        with pytest.raises(sw.LinkError, match="nobody connected"):
            receiver.accept("20ms")
        thread = threading.Timer(0.1, receiver.cancel)
        thread.start()
        with pytest.raises(sw.LinkError, match="called off"):
            receiver.accept()
        thread.join()
    with pytest.raises(sw.UsageError, match="closed"):
        receiver.accept()


@pytest.mark.parametrize(("listen", "match"), [("nonsense", "port is missing"), ("127.0.0.1:99999", "65535")])
def test_wrong_endpoints_are_refused(listen, match):
    with pytest.raises(sw.UsageError, match=match):
        sw.Receiver(listen)
