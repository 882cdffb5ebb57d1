"""Ctrl-C and forks, in processes of their own."""

import os
import signal
import subprocess
import sys
import textwrap
import warnings

import pytest
import switchover as sw
from conftest import QUICK, runs_on


def run(body, *, interrupt_after=None):
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = ""
    if interrupt_after:
        while interrupt_after not in seen:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            seen += line
        process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, seen + out, err


BODY = """
    import switchover as sw
    guest = sw.Guest("32MiB", sw.workloads.Sweep(rate="100MB/s"))
    try:
        sw.migrate(guest, policy=lambda round, history: sw.Decision.proceed(), link="{link}", to={to}, warm_up="1ms",
                   on_round=lambda round, decision: print("round", round.index, flush=True))
    except KeyboardInterrupt:
        before = guest.progress.operations
        while guest.progress.operations == before:
            pass
        guest.check()
        guest.close()
        print("intact")
"""


@pytest.mark.parametrize("to", ["None", "'process'"])
def test_ctrl_c_ends_a_run_with_the_guest_intact(to):
    code, out, err = run(BODY.format(link="1Gbit/s", to=to), interrupt_after="round 1")
    assert (code, err) == (0, "")
    assert out.endswith("intact\n")


def test_ctrl_c_in_a_round():
    """Round 0 takes 6 s here: what is interrupted is the engine, not Python."""
    body = """
        import os, signal, threading
        import switchover as sw
        guest = sw.Guest("32MiB", "sweep", fill="random")
        def press(m):
            while not m.sent_bytes:
                pass
            os.kill(os.getpid(), signal.SIGINT)
        m = sw.Migration(guest, "pre-copy", link="40Mbit/s", warm_up="1ms")
        try:
            with m:
                threading.Thread(target=press, args=(m,)).start()
                for _ in m:
                    print("a round ended")
        except KeyboardInterrupt:
            print(m.report.outcome)
        before = guest.progress.operations
        while guest.progress.operations == before:
            pass
        guest.check()
    """
    assert run(body) == (0, "aborted\n", "")


def test_ctrl_c_while_waiting_for_a_guest():
    body = """
        import switchover as sw
        with sw.Receiver() as receiver:
            try:
                print("listening", flush=True)
                receiver.accept()
            except KeyboardInterrupt:
                print("stopped")
    """
    assert run(body, interrupt_after="listening") == (0, "listening\nstopped\n", "")


@pytest.mark.parametrize("workload", ["'sweep'", "work"])
def test_an_interpreter_ends_while_guests_run(workload):
    """Guests that nothing frees before: threads that run Python code then would abort the process."""
    body = f"""
        import builtins
        import switchover as sw
        def work(memory):
            memory[:] += 1
        builtins.kept = [sw.Guest("1MiB", {workload}) for _ in range(4)]
        builtins.kept.append(builtins.kept)
        for guest in builtins.kept[:4]:
            guest.start()
        while not all(guest.progress.operations for guest in builtins.kept[:4]):
            pass
    """
    assert run(body) == (0, "", "")


def test_a_forked_child_is_told(guest):
    guest.start()
    tracker = sw.trackers.get("software").arm(guest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        told = 0
        for use in (guest.pause, lambda: guest.progress, tracker.peek, lambda: sw.migrate(guest)):
            try:
                use()
            except sw.UsageError as error:
                told += "forked child" in str(error)
        guest = tracker = None
        os._exit(0 if told == 4 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    tracker.disarm()
    assert sw.migrate(guest, policy="max-rounds:1", **QUICK).outcome == "completed"
    runs_on(guest)
