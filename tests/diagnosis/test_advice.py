"""What swinssl_doctor advises: one fault at a time, put into the facts of a healthy machine."""

from __future__ import annotations

import copy

import pytest

from swinssl.diagnosis.advice import advise

HEALTHY = {
    "swinssl": {"version": "0.1.0", "installed": True},
    "python": {"bits": 64},
    "cpu": {"usable": 8, "load": 0.5},
    "memory": {"free_gb": 20.0},
    "graphics": {"nvidia_driver": "570.1", "cards": ["A100 40 GB"]},
    "threads": {},
    "versions": {"torch": "2.13.0+cu130", "numpy": "2.4.6", "torchvision": "0.28.0", "isal": "1.9.1"},
    "workspace": {"root": "swinssl_data", "exists": True},
    "disk": {"free_gb": 200.0, "write_mb_per_s": 300.0},
    "shared memory": {"total_gb": 10.0},
    "imports": {"failed": {}},
    "torch": {"built_for": "CUDA 13.0", "cuda": True, "mps": False, "bf16_on_cpu": True, "threads": 8},
}
LOWEST = {"torch": "2.10", "numpy": "2.0"}


def advice_for(changes=None, *, torch_for_torchvision="2.13.0"):
    facts = copy.deepcopy(HEALTHY)
    for section, values in (changes or {}).items():
        facts[section] |= values
    return [str(item) for item in advise(facts, lowest=LOWEST, torch_for_torchvision=torch_for_torchvision)]


def test_a_healthy_machine_needs_no_advice():
    assert advice_for() == []


@pytest.mark.parametrize(
    ("changes", "says", "remedy"),
    [
        ({"versions": {"numpy": "missing"}}, "error: numpy is not installed", "pip install -c constraints.txt"),
        ({"versions": {"numpy": "1.26.4"}}, "error: numpy is 1.26.4, needed is 2.0 or newer", "pip install"),
        (
            {"imports": {"failed": {"numpy": "ImportError: DLL load failed"}}},
            "error: numpy cannot be imported (ImportError: DLL load failed)",
            "pip uninstall numpy",
        ),
        ({"swinssl": {"installed": False}}, "error: swinssl runs from a folder", "pip install -c constraints.txt -e ."),
        ({"python": {"bits": 32}}, "error: this Python has 32 bits", "64-bit"),
        ({"versions": {"isal": "missing"}}, "note: isal is not installed", "pip install isal"),
        ({"imports": {"failed": {"triton": "OSError"}}}, "warning: triton cannot be imported", "pip uninstall triton"),
        ({"memory": {"free_gb": 2.04}}, "warning: only 2.0 GB of memory", "--preset tiny"),
        ({"memory": {"container_limit_gb": 3.0}}, "warning: only 3.0 GB of memory", "--workers 0"),
        ({"disk": {"free_gb": 3.3}}, "warning: only 3.3 GB of disk are free", "--root"),
        ({"disk": {"write_mb_per_s": 9.6}}, "warning: the disk writes 10 MB/s", "local disk"),
        ({"disk": {"not_writable": "quota"}}, "warning: swinssl_data cannot be written (quota)", "--root"),
        ({"shared memory": {"total_gb": 0.064}}, "note: /dev/shm has 0.06 GB", "--shm-size"),
        ({"workspace": {"nnUNet_raw": "no such folder"}}, "warning: the folder of nnUNet_raw", "unset"),
        ({"torch": {"threads": 64}}, "warning: torch would start 64 threads, but 8 cores", "OMP_NUM_THREADS=8"),
        ({"cpu": {"container_limit": 1.5}}, "8 threads, but 1.5 cores may be used", "OMP_NUM_THREADS=2"),
        ({"torch": {"threads": 1}, "threads": {"OMP_NUM_THREADS": "1"}}, "note: OMP_NUM_THREADS=1 leaves", "Unset it"),
        ({"cpu": {"load": 7.4}}, "warning: other programs keep the cores busy (load 7.4 on 8 cores)", "expect longer"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_remedy_and_nothing_else(changes, says, remedy):
    (told,) = advice_for(changes)
    assert says in told and remedy in told


def test_a_card_that_torch_was_not_built_for_asks_for_another_build():
    (told,) = advice_for({"torch": {"cuda": False, "built_for": "CPU"}})
    assert "torch, built for CPU, cannot use the A100 40 GB" in told and "Install the CUDA build" in told


def test_a_card_that_torch_was_built_for_asks_for_the_driver():
    (told,) = advice_for({"torch": {"cuda": False}})
    assert "built for CUDA 13.0" in told and "driver" in told


def test_a_machine_without_card_trains_on_the_cpu_and_hears_of_its_speed():
    no_card = {"graphics": {"cards": []}, "torch": {"cuda": False}}
    (told,) = advice_for(no_card)
    assert told.startswith("note: no GPU") and "twice" not in told
    (told,) = advice_for({**no_card, "torch": {"cuda": False, "bf16_on_cpu": False}})
    assert "twice as long" in told
    assert advice_for({"graphics": {"cards": []}, "torch": {"cuda": False, "mps": True}}) == []


def test_torchvision_of_another_torch_version_is_told():
    (told,) = advice_for(torch_for_torchvision="2.12.1")
    assert "torchvision 0.28.0 was built for torch 2.12.1, here is 2.13.0+cu130" in told and "Install both" in told


def test_torchvision_of_another_build_of_the_same_torch_is_told():
    (told,) = advice_for({"imports": {"failed": {"torchvision": "RuntimeError: operator nms does not exist"}}})
    assert "torchvision 0.28.0 does not work with torch 2.13.0+cu130" in told


def test_no_torchvision_is_no_fault():
    assert advice_for({"versions": {"torchvision": "missing"}}, torch_for_torchvision=None) == []


def test_threads_that_spin_are_told_on_busy_cores_only():
    spinning = {"threads": {"OMP_WAIT_POLICY": "active"}}
    assert advice_for(spinning) == []
    told = advice_for({**spinning, "cpu": {"load": 7.4}})
    assert len(told) == 2 and "OMP_WAIT_POLICY makes waiting threads spin" in told[1]


def test_the_worst_comes_first():
    told = advice_for({"versions": {"isal": "missing"}, "memory": {"free_gb": 1.0}, "python": {"bits": 32}})
    assert [line.split(":")[0] for line in told] == ["error", "warning", "note"]


@pytest.mark.parametrize("section", HEALTHY)
def test_a_failed_probe_is_told_and_costs_no_other_advice(section):
    facts = copy.deepcopy(HEALTHY) | {section: {"probe_failed": "OSError: gone"}}
    if section != "disk":
        facts["disk"]["free_gb"] = 1.0
    told = [str(item) for item in advise(facts, lowest=LOWEST, torch_for_torchvision="2.13.0")]
    assert any(f"{section} could not be examined (OSError: gone)" in line for line in told)
    assert (section == "disk") or any("1.0 GB of disk" in line for line in told)
