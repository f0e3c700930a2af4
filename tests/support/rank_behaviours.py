"""Commands that do one thing on one of two ranks, for the tests of `--gpus`; no torch, so that they start at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from swinssl.cli.command import command
from swinssl.cli.ranks import Gpus, start_ranks
from swinssl.core.errors import Interrupted, UserError


def sample(
    what: Annotated[str, typer.Argument()], folder: Annotated[Path, typer.Argument()] = Path(), gpus: Gpus = 1
) -> None:
    """Behave as `what` says."""
    if start_ranks("support.rank_behaviours:main", gpus):
        return
    rank, world = os.environ["RANK"], os.environ["WORLD_SIZE"]
    print(f"rank {rank} of {world}: {sys.argv[1:]}")
    if what in ("crash", "die", "mend") and rank == "0":
        time.sleep(600)
    if what == "crash":
        raise ZeroDivisionError("of rank 1")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "mend":
        raise UserError("rank 1 alone: found. Fix it.")
    if what == "mend both":
        raise UserError("both found it. Fix it.")
    if what == "wait":
        asked: list[int] = []
        signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
        signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
        (folder / f"ready{rank}").touch()
        while not asked:
            time.sleep(0.02)
        time.sleep(0.5 if rank == "0" else 0.0)  # the first saves
        (folder / f"stopped{rank}").write_text(str(asked))
        raise Interrupted("saved; the same command goes on.")
    if what == "listen":
        import psutil
        import torch

        from swinssl.training.engine.distribution import Ranks

        ranks = Ranks.join(torch.device("cpu"))
        ranks.barrier()
        heard_on = {one.laddr.ip for one in psutil.Process().net_connections("tcp") if one.status == "LISTEN"}
        (folder / f"heard_on{rank}").write_text(" ".join(sorted(heard_on)))
        ranks.barrier()
    if what == "start":
        (folder / f"ready{rank}").touch()
        time.sleep(600)


main = command(sample)

if __name__ == "__main__":
    main()
