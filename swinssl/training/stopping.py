"""Requests to stop: Ctrl-C, SIGTERM (schedulers, shutdown) or a STOP file. The step in progress is always finished."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any


class StopRequests:
    """Listens while the block runs. A second Ctrl-C interrupts at once.

    Args:
        stop_file: making this file is a request.
    """

    def __init__(self, stop_file: Path) -> None:
        self.stop_file = stop_file
        self._asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        # Signals can only be caught in the main thread; elsewhere the STOP file still works.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether someone asked to stop."""
        return self._asked or self.stop_file.exists()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
