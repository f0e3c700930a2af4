"""How many threads torch starts, and how they wait for each other."""

from __future__ import annotations

import os

from swinssl.allotment import bound_cores, usable_cores


def fit_allotment() -> None:
    """Let torch start as many threads as are allotted cores; to be called before it is loaded.

    By itself it looks at the cores that the process is bound to, not at a container's or a job's share of their time:
    with 2 of 64 cores it would start 64 threads, of which 62 wait. What the user has set stays.
    """
    if usable_cores() < bound_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def spin_briefly() -> None:
    """Let waiting threads spin for some microseconds, then sleep; to be called before torch is loaded.

    By default they spin for milliseconds and so take the cores from the threads that read ahead, and from other
    programs: with one busy neighbour on 2 cores a step took 10 to 20 times as long. Never to spin costs 15 % on an idle
    machine; this costs nothing there. What the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # all OpenMP libraries know this
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # GNU's, which torch has on Linux, this too
