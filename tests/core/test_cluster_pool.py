"""Cases in the workers of a dask cluster: the same as without, also where workers die or fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from support.toy_dataset import plans_for, write_raw

from swinssl.core.errors import UserError
from swinssl.core.pools import Cluster
from swinssl.preprocessing.preprocess import preprocess_dataset

ELSEWHERE = "tcp://127.0.0.1:9"


@pytest.fixture
def workers():
    """Two processes on the loopback, and a client of theirs; new ones for each test, which spoils them."""
    distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install '.[dask]'")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def address(workers):
    return workers.scheduler.address


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw") / "Dataset001_Balls", cases=6)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def statuses(report):
    return {case.case_id: case.status for case in report.cases}


@pytest.fixture(scope="module")
def alone(raw, tmp_path_factory):
    """What one process stores."""
    folder = tmp_path_factory.mktemp("alone")
    preprocess_dataset(raw, plans_for(raw), folder, workers=0)
    return contents(folder)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_worker_that_is_killed_costs_its_case_a_second_try(raw, tmp_path, workers, address, alone, monkeypatch):
    log = tmp_path / "log"
    log.mkdir()

    def die_at_the_second_case(folder=str(log), number=int(signal.SIGKILL)):
        """On a worker; the one that takes its place is not told."""
        import os
        from pathlib import Path

        from swinssl.preprocessing import preprocess as module

        prepare, begun = module.prepare, []

        def killed(*args, **values):
            begun.append(1)
            if len(begun) == 2:
                (Path(folder) / str(os.getpid())).touch()
                os.kill(os.getpid(), number)
            return prepare(*args, **values)

        module.prepare = killed

    workers.run(die_at_the_second_case)
    monkeypatch.chdir(tmp_path)  # where no worker was started
    report = preprocess_dataset(raw, plans_for(raw), Path("out"), workers=0, cluster=Cluster(address))
    assert len(list(log.iterdir())) >= 1
    # What a worker had done before it died is found in the store.
    assert set(statuses(report).values()) <= {"done", "current"} and report.missing == ()
    assert contents(tmp_path / "out") == alone


def test_a_case_that_fails_gives_its_name_and_its_trace(raw, tmp_path, workers, address):
    def fail_at_ball_3():
        from swinssl.preprocessing import preprocess as module

        read = module._read

        def failing(case):
            if case.id == "ball_3":
                raise ZeroDivisionError("of ball_3")
            return read(case)

        module._read = failing

    workers.run(fail_at_ball_3)
    report = preprocess_dataset(raw, plans_for(raw), tmp_path / "out", workers=0, cluster=Cluster(address))
    assert {name for name, status in statuses(report).items() if status == "failed"} == {"ball_3"}
    message = report.with_status("failed")[0].message
    assert "Traceback" in message and "ZeroDivisionError: of ball_3" in message and report.missing == ("ball_3",)


def test_what_no_worker_survives_is_named_and_the_rest_is_done(address):
    found = dict(Cluster(address).run_jobs(_deadly, [1, 2, 3, 0]))
    assert [found[number] for number in range(3)] == [1, 2, 3]
    assert "memory" in str(found[3])


def _deadly(job):
    if job == 0:
        os.kill(os.getpid(), 9)
    return job


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_certificates_are_those_of_dasks_configuration(tmp_path):
    distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install '.[dask]'")
    import dask

    certificate, key = tmp_path / "me.pem", tmp_path / "me.key"
    words = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(["openssl", *words.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    paths = {
        f"{who}.{what}": str(path)
        for who in ("client", "scheduler", "worker")
        for what, path in (("cert", certificate), ("key", key))
    }
    tls = {f"distributed.comm.tls.{name}": path for name, path in {**paths, "ca-file": str(certificate)}.items()}
    with (
        dask.config.set(tls),
        distributed.LocalCluster(
            n_workers=1,
            processes=False,
            protocol="tls",
            security=distributed.Security(),
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
    ):
        assert cluster.scheduler_address.startswith("tls://")
        assert dict(Cluster.at(cluster.scheduler_address, insecure=False).run_jobs(_deadly, [7, 8])) == {0: 7, 1: 8}


def test_an_open_address_must_be_allowed():
    assert Cluster.at("tls://host:8786", insecure=False).address == "tls://host:8786"
    assert Cluster.at(ELSEWHERE, insecure=True).address == ELSEWHERE
    with pytest.raises(UserError, match=r"whoever reaches this port can run code as you.*--insecure-cluster"):
        Cluster.at(ELSEWHERE, insecure=False)
    for address in ("host:8786", "http://host", "tls://"):
        with pytest.raises(UserError, match="expected tls://HOST:PORT"):
            Cluster.at(address, insecure=True)


def test_no_scheduler_and_no_certificates_are_said(monkeypatch):
    pytest.importorskip("distributed", reason="dask is not installed: pip install '.[dask]'")
    monkeypatch.setattr("swinssl.core.pools.CONNECT_SECONDS", "1s")
    with pytest.raises(UserError, match="no dask scheduler answers"):
        list(Cluster(ELSEWHERE).run_jobs(_deadly, [1]))
    with pytest.raises(UserError, match=r"distributed\.comm\.tls"):
        list(Cluster("tls://127.0.0.1:9").run_jobs(_deadly, [1]))


def test_without_dask_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(UserError, match=r"dask is not installed. Install it"):
        list(Cluster(ELSEWHERE).run_jobs(_deadly, [1]))
