"""How torch's threads wait for each other."""

from __future__ import annotations

import os


def spin_briefly() -> None:
    """Let waiting threads spin for some microseconds, then sleep; to be called before torch is loaded.

    By default they spin for milliseconds and so take the cores from the threads that read ahead, and from other
    programs: with one busy neighbour on 2 cores a step took 10 to 20 times as long. Never to spin costs 15 % on an idle
    machine; this costs nothing there. What the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # all OpenMP libraries know this
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # GNU's, which torch has on Linux, this too
