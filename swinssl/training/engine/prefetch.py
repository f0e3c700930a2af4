"""Samples of coming steps, read and augmented in threads while the network computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from swinssl.core.rng import KeyedRng

# Steps that are kept ready; more would only hold memory.
STEPS_AHEAD = 2


def read_ahead(
    load: Callable[[KeyedRng], Any],
    rngs_of_step: Callable[[int], Sequence[KeyedRng]],
    *,
    first_step: int,
    readers: int,
) -> Iterator[list[Any]]:
    """Yield the loaded samples of step `first_step`, then of the next, without end.

    Every sample depends on its own draws alone, so the number of readers changes nothing but the speed. An error in a
    reader is raised here, where its step is due.

    Args:
        load: reads one sample.
        rngs_of_step: the generators of a step's samples.
        readers: threads; 0 loads in place.
    """
    step = first_step
    if readers == 0:
        while True:
            yield [load(rng) for rng in rngs_of_step(step)]
            step += 1
    with ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool:
        waiting: deque[list[Future[Any]]] = deque()
        try:
            while True:
                while len(waiting) <= STEPS_AHEAD:
                    waiting.append([pool.submit(load, rng) for rng in rngs_of_step(step)])
                    step += 1
                yield [future.result() for future in waiting.popleft()]
        finally:
            for future in (f for futures in waiting for f in futures):
                future.cancel()
