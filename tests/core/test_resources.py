"""What control groups allot: both versions, nested ones, and a container that does not see its own path."""

from __future__ import annotations

import os

import psutil
import pytest

from swinssl.core import machine as resources

GB = 10**9


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Writes files as the kernel shows them; the process is bound to 16 cores, and 64 GB are free."""
    monkeypatch.setattr(resources, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(resources, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory)

    def write(own, **texts):
        (tmp_path / "own").write_text(own + "\n")
        for name, text in texts.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return write


class Memory:
    available = 64 * GB


def all_of_it():
    return resources.cpu_limit() is None and resources.memory_limit() is None and found() == (16, 64 * GB)


def found():
    return resources.usable_cores(), resources.free_memory()


def test_without_groups_or_limits_it_is_the_machine(kernel):
    assert all_of_it()  # no such files: another system
    unlimited = {"cpu.max": "max 100000", "memory.max": "max", "memory.current": 5 * GB, "memory.stat": "anon 7"}
    kernel("0::/", **unlimited)
    assert all_of_it()
    first_version = {
        "cpu/cpu.cfs_quota_us": -1,
        "cpu/cpu.cfs_period_us": 100000,
        "memory/memory.limit_in_bytes": 9223372036854771712,
    }
    kernel("9:cpuset:/\n2:cpu,cpuacct:/\n1:memory:/\n0::/", **first_version)
    assert all_of_it()


def test_a_container_s_share(kernel):
    kernel("0::/", **{"cpu.max": "150000 100000", "memory.max": 8 * GB, "memory.current": 5 * GB})
    assert resources.cpu_limit() == 1.5 and resources.memory_limit() == 8 * GB
    assert found() == (2, 3 * GB)
    kernel("0::/", **{"memory.stat": f"anon {GB}\ninactive_file {2 * GB}\nactive_file {2 * GB}"})
    assert found() == (2, 5 * GB)  # the kernel drops files that nobody reads
    kernel("0::/", **{"cpu.max": "20000 100000", "memory.current": 9 * GB, "memory.stat": ""})
    assert found() == (1, 0)
    kernel("0::/", **{"cpu.max": "6400000 100000", "memory.max": 800 * GB})
    assert found() == (16, 64 * GB)


def test_of_nested_groups_the_narrowest_counts(kernel):
    job = "system.slice/job_7"
    kernel(
        f"0::/{job}/step_0",
        **{
            "cpu.max": "max 100000",
            f"{job}/cpu.max": "400000 100000",
            f"{job}/step_0/cpu.max": "max 100000",
            f"{job}/memory.max": 32 * GB,
            f"{job}/memory.current": 30 * GB,
            f"{job}/step_0/memory.max": 16 * GB,
            f"{job}/step_0/memory.current": 1 * GB,
            "system.slice/other/cpu.max": "100000 100000",
            "system.slice/other/memory.max": GB,
        },
    )
    assert resources.memory_limit() == 16 * GB
    assert found() == (4, 2 * GB)


def test_version_1_and_a_path_that_is_the_host_s(kernel):
    kernel(
        "4:memory:/docker/f00\n3:cpuset:/docker/f00\n2:cpu,cpuacct:/docker/f00\n1:name=systemd:/docker/f00",
        **{
            "cpu/cpu.cfs_quota_us": 50000,
            "cpu/cpu.cfs_period_us": 100000,
            "memory/memory.limit_in_bytes": 4 * GB,
            "memory/memory.usage_in_bytes": 3 * GB,
            "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GB}",
        },
    )
    assert resources.cpu_limit() == 0.5 and resources.memory_limit() == 4 * GB
    assert found() == (1, 2 * GB)
