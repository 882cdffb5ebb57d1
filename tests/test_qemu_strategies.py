"""Every strategy on real QEMUs, with the guest's own check of its data at the destination."""

import os
import shutil
import subprocess

import pytest
import switchover as sw
from vms.pair import CALM, SLOW, STORM, ask, pair, runs, settings

# Two virtual machines on a machine that may have other work.
pytestmark = pytest.mark.timeout(240)
EVERY = ("7.2", "10.0")
ROUNDS = sw.policies.MaxRounds(2)
CASES = [
    ("pre-copy", "", EVERY, ROUNDS),
    ("stop-and-copy", "", EVERY, None),
    ("post-copy", "", EVERY, None),
    ("post-copy", "preempt", EVERY, None),
    ("hybrid:rounds=2", "downtime_limit=1ms", EVERY, None),
    ("pre-copy", "xbzrle=1MiB", EVERY, ROUNDS),
    ("pre-copy", "multifd=3", EVERY, ROUNDS),
    ("pre-copy", "multifd=2,compression=zlib", EVERY, ROUNDS),
    ("pre-copy", "multifd=2,compression=zstd,compression_level=2", EVERY, ROUNDS),
    ("pre-copy", "zero_pages=legacy", ("10.0",), ROUNDS),
    ("pre-copy", "multifd=2,zero_pages=multifd", ("10.0",), ROUNDS),
    ("pre-copy", "auto_converge,cpu-throttle-initial=90,throttle-trigger-threshold=1", EVERY, None),
]


@pytest.mark.parametrize(
    ("qemu", "strategy", "features", "policy"),
    [(each, s, f, p) for s, f, releases, p in CASES for each in releases],
    indirect=["qemu"],
    ids=lambda value: str(value)[:40],
)
def test_the_guest_arrives_whole(qemu, strategy, features, policy):
    with pair(qemu) as (source, destination):
        before = settings(source), settings(destination)
        report = sw.qemu.migrate(
            source.monitor,
            destination.monitor,
            strategy,
            policy,
            features=",".join(filter(None, [features, SLOW])),
            heartbeat=(source.beat, destination.beat),
            observer=(source.echo, destination.echo),
        )
        assert (report.outcome, report.reason) == ("completed", "")
        runs(destination)
        assert not ask(source, "query-status")["running"]
        assert (settings(source), settings(destination)) == before
        check_report(report, strategy)


def check_report(report, strategy):
    assert report.data["world"] == "qemu"
    rounds = report.data["rounds"]
    assert [row["index"] for row in rounds] == list(range(len(rounds)))
    assert [row["live"] for row in rounds] == [True] * (len(rounds) - 1) + [False]
    assert sum(row["sent_bytes"] for row in rounds) <= report.sent_bytes
    assert report.memory_bytes >= 16 << 20
    assert report.blackout == report.guest_gap is not None
    assert None not in (report.sender_pause, report.events_gap, report.observer_gap)
    assert report.data["blackout_from"] == "guest_gap"
    used = report.data["qemu"]["cpu"]
    assert set(used) == {"source", "destination"}
    assert all(len(each["vcpus"]) == 1 for each in used.values())
    assert sw.Report.from_json(report.to_json()) == report
    gone = [event for event in report.events if event["event"] == "decided"]
    if strategy not in {"pre-copy", "stop-and-copy"}:
        assert gone[-1]["decision"]["kind"] == "post_copy"
        assert "postcopy-active" in [event.get("state") for event in report.events]


def test_a_file_with_a_place_for_each_page_is_saved_and_restored(tmp_path, qemu):
    uri = f"file:{tmp_path / 'saved'}"
    with pair(qemu) as (source, destination):
        if qemu.release == "7.2":
            with pytest.raises(sw.UsageError, match="writes no files by itself"):
                sw.qemu.migrate(source.monitor, uri, features="mapped_ram")
            return
        report = sw.qemu.migrate(source.monitor, uri, policy=ROUNDS, features=f"mapped_ram,multifd=2,{SLOW}")
        assert report.outcome == "completed"
        assert "stopped at the source" in report.reason
        assert report.blackout is None
        assert sw.qemu.restore(destination.monitor, uri, features="mapped_ram,multifd=2")["status"] == "completed"
        runs(destination)


def test_a_stream_is_saved_by_a_program(tmp_path, qemu):
    path = tmp_path / "saved"
    with pair(qemu, CALM) as (source, destination):
        report = sw.qemu.migrate(source.monitor, f"exec:cat >{path}")
        assert report.outcome == "completed"
        assert sw.qemu.restore(destination.monitor, f"exec:cat {path}")["status"] == "completed"
        runs(destination)


def test_over_tls_with_a_shared_key(tmp_path, qemu):
    (tmp_path / "keys.psk").write_text(f"qemu:{'4f' * 32}\n")
    sides = {
        "client": f"tls-creds-psk,id=here,endpoint=client,dir={tmp_path},username=qemu",
        "server": f"tls-creds-psk,id=there,endpoint=server,dir={tmp_path}",
    }
    objects = ("-object", sides["client"], "-object", sides["server"])
    with pair(qemu, STORM, arguments=objects) as (source, destination):
        before = settings(source), settings(destination)
        features = f"tls=here,tls_there=there,{SLOW}"
        report = sw.qemu.migrate(source.monitor, destination.monitor, policy=ROUNDS, features=features)
        assert report.outcome == "completed", report.reason
        runs(destination)
        assert (settings(source), settings(destination)) == before


def openssl(folder, *words):
    command = ["openssl", *map(str, words)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority with a server and a client, and in a folder of its own a server of another authority."""
    if shutil.which("openssl") is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("no openssl here to make certificates with")
    folders = [tmp_path_factory.mktemp(name) for name in ("certificates", "others")]
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for folder in folders:
        openssl(folder, "req", "-x509", *key, "-subj", "/CN=tests", "-keyout", "ca-key.pem", "-out", "ca-cert.pem")
        for role in ("server", "client"):
            openssl(folder, "req", *key[:5], "-subj", f"/CN={role}", "-keyout", f"{role}-key.pem", "-out", "asked")
            (folder / "more").write_text(
                f"subjectAltName=DNS:there.example\nextendedKeyUsage={role}Auth\nkeyUsage=digitalSignature\n"
            )
            signed = ("-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2")
            openssl(folder, "x509", "-req", "-in", "asked", *signed, "-extfile", "more", "-out", f"{role}-cert.pem")
    return folders


def credentials(here, there):
    return (
        "-object", f"tls-creds-x509,id=here,endpoint=client,dir={here},verify-peer=on",
        "-object", f"tls-creds-x509,id=there,endpoint=server,dir={there},verify-peer=on",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "features"), [("pre-copy", ""), ("pre-copy", "multifd=2"), ("post-copy", "preempt")]
)
def test_over_tls_with_certificates(qemu, certificates, strategy, features):
    policy = ROUNDS if strategy == "pre-copy" else None
    with pair(qemu, arguments=credentials(certificates[0], certificates[0])) as (source, destination):
        before = settings(source), settings(destination)
        words = filter(None, ["tls=here,tls_there=there,tls_hostname=there.example", features, SLOW])
        with sw.qemu.Relay() as relay:
            report = sw.qemu.migrate(
                source.monitor, destination.monitor, strategy, policy, features=",".join(words), through=relay
            )
        assert report.outcome == "completed", report.reason
        runs(destination)
        assert (settings(source), settings(destination)) == before
        # Nobody on the way sees what goes by.
        assert relay.moments()["last_ram_ends"] is None
        assert report.data["blackout_parts"]["device_state"] is None


@pytest.mark.parametrize("wrong", ["the name", "the authority"])
def test_a_certificate_of_somebody_else_moves_nothing(qemu, certificates, wrong):
    there = certificates[wrong == "the authority"]
    name = "elsewhere.example" if wrong == "the name" else "there.example"
    with pair(qemu, CALM, arguments=credentials(certificates[0], there)) as (source, destination):
        before = settings(source)
        features = f"tls=here,tls_there=there,tls_hostname={name}"
        report = sw.qemu.migrate(source.monitor, destination.monitor, features=features)
        assert report.outcome == "failed"
        assert report.reason.endswith("the guest runs at the source")
        assert "ertificate" in report.reason or "TLS" in report.reason
        runs(source)
        assert settings(source) == before
