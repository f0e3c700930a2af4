"""How many threads torch starts, and how they wait for each other."""

from __future__ import annotations

import os
import re

from swinssl.allotment import bound_cores, usable_cores
from swinssl.errors import UserError

THREADS = "OMP_NUM_THREADS"


def fit_allotment() -> None:
    """Let torch start as many threads as are allotted cores; to be called before it is loaded.

    By itself it looks at the cores that the process is bound to, not at a container's or a job's share of their time:
    with 2 of 64 cores it would start 64 threads, of which 62 wait. What the user has set stays.

    Raises:
        UserError: what the user has set is no number; libraries fail on it later, in words that point elsewhere.
    """
    found = os.environ.get(THREADS)
    if found is not None and not re.fullmatch(r"\s*0*[1-9][0-9]{0,5}\s*", found):
        raise UserError(f"{THREADS}={found}: expected a whole number above 0. Set it to one, or unset it.")
    usable = usable_cores()
    if usable < bound_cores():
        os.environ.setdefault(THREADS, str(usable))


def threads_each(processes: int) -> str:
    """`OMP_NUM_THREADS` of each of several processes: what the user has set, else their part of the cores.

    What `fit_allotment` has set, in this process or in one that started it, the user has not.
    """
    usable, found = usable_cores(), os.environ.get(THREADS)
    fitted = usable < bound_cores() and found == str(usable)
    return str(max(1, usable // processes)) if found is None or fitted else found


def spin_briefly() -> None:
    """Let waiting threads spin for some microseconds, then sleep; to be called before torch is loaded.

    By default they spin for milliseconds and so take the cores from the threads that read ahead, and from other
    programs: with one busy neighbour on 2 cores a step took 10 to 20 times as long. Never to spin costs 15 % on an idle
    machine; this costs nothing there. What the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # all OpenMP libraries know this
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # GNU's, which torch has on Linux, this too
