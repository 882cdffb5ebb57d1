"""The QMP layer, on real QEMUs and on peers that behave badly."""

import asyncio
import json
import socket
import threading
from contextlib import contextmanager

import pytest
import switchover as sw
from vms.boot import IDLE
from vms.machine import Machine

GREETING = {"QMP": {"version": {"qemu": {"major": 9, "minor": 9, "micro": 9}, "package": ""}, "capabilities": []}}


def test_commands_events_and_errors(qemu):
    with Machine(qemu, IDLE) as machine, sw.qemu.Qmp(machine.control) as qmp:
        assert qmp.pid == machine.process.pid
        assert qmp.execute("query-status")["running"]
        qmp.execute("stop")
        event = qmp.event("STOP")
        assert event.name == "STOP"
        assert event.stamped > 1e9
        with pytest.raises(sw.QmpError, match=r"nonsense: .*not been found") as caught:
            qmp.execute("nonsense")
        assert caught.value.command == "nonsense"
        assert "The command nonsense has not been found" in caught.value.words
        with pytest.raises(sw.QmpError, match="no event RESUME within"):
            qmp.event("RESUME", timeout="20ms")


def test_for_asyncio(qemu):
    async def work(path):
        async with sw.qemu.AsyncQmp(path) as qmp:
            status, name = await asyncio.gather(qmp.execute("query-status"), qmp.execute("query-name"))
            await qmp.execute("stop")
            event = await asyncio.wait_for(qmp.events.get(), 10)
            return status["running"], name, event.name

    with Machine(qemu, IDLE) as machine:
        assert asyncio.run(work(machine.control)) == (True, {}, "STOP")


def test_abilities_are_asked_for(qemu):
    with Machine(qemu, IDLE) as machine, sw.qemu.Qmp(machine.control) as qmp:
        found = sw.qemu.Abilities(qmp)
        assert found.version.startswith(qemu.release)
        assert found.has_command("migrate-recover")
        assert not found.has_command("migrate-teleport")
        assert "zstd" in found.choices("migrate-set-parameters", "multifd-compression")
        assert ("file" in found.transports()) == ("mapped-ram" in found.capabilities) == (qemu.release == "10.0")
        assert found.has_argument("migrate", "resume")


def test_a_monitor_that_is_taken(qemu):
    with Machine(qemu, IDLE) as machine, sw.qemu.Qmp(machine.control):
        with pytest.raises(sw.QmpError, match="serves one client at a time"):
            sw.qemu.Qmp(machine.control, timeout="300ms")


def test_nobody_there(tmp_path):
    with pytest.raises(sw.QmpError, match="no QEMU monitor answers there"):
        sw.qemu.Qmp(tmp_path / "none")
    with pytest.raises(sw.UsageError, match="path or HOST:PORT"):
        sw.qemu.Qmp("tcp:nowhere")


@contextmanager
def peer(tmp_path, talk):
    """A monitor of another kind; `talk` has its side of one connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "peer"))
        listener.listen(1)

        def serve():
            connection, _ = listener.accept()
            with connection:
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield tmp_path / "peer"
        thread.join()


def greet(connection):
    connection.sendall(json.dumps(GREETING).encode() + b"\r\n")
    assert json.loads(connection.recv(4096))["execute"] == "qmp_capabilities"
    connection.sendall(b'{"return": {}}\r\n')


def test_a_peer_that_is_no_qemu(tmp_path):
    with peer(tmp_path, lambda connection: connection.sendall(b"220 mail.example\r\n")) as path:
        with pytest.raises(sw.QmpError, match="no QEMU monitor answers there"):
            sw.qemu.Qmp(path)


def test_an_answer_that_does_not_come(tmp_path):
    done = threading.Event()

    def talk(connection):
        greet(connection)
        done.wait(20)

    with peer(tmp_path, talk) as path:
        try:
            with sw.qemu.Qmp(path) as qmp:
                with pytest.raises(sw.QmpError, match=r"query-status: QEMU does not answer within 0\.2 s"):
                    qmp.execute("query-status", timeout=0.2)
        finally:
            done.set()


def test_a_connection_that_is_lost(tmp_path):
    def talk(connection):
        greet(connection)
        connection.recv(4096)

    with peer(tmp_path, talk) as path:
        with sw.qemu.Qmp(path) as qmp:
            with pytest.raises(sw.QmpError, match="the connection to QEMU is lost"):
                qmp.execute("query-status")
