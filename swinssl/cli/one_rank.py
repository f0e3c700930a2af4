"""One of the processes of `--gpus N`: `python -m swinssl.cli.one_rank MODULE:ENTRY NAME ARGUMENT...`."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time

# Between two looks at whether the process that started this one is still there.
PAUSE_SECONDS = 1.0


def main() -> None:
    """Run the entry point as if it had been typed; save and stop when whoever started it is gone."""
    entry, *sys.argv = sys.argv[1:]
    if os.name != "nt":
        threading.Thread(target=_stop_without, args=(os.getppid(),), daemon=True).start()
    module, _, name = entry.partition(":")
    getattr(importlib.import_module(module), name)()


def _stop_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PAUSE_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
