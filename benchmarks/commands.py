"""How a benchmark script ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from swinssl.core.errors import UserError


def leave_after(main: Callable[[], int]) -> NoReturn:
    """Leave Python with what `main` returns: 2 after a failure, whose reason is said, 130 where it was stopped."""
    try:
        sys.exit(main())
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        print(f"{Path(error.cmd[0]).name} failed (exit {error.returncode}); see above.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
