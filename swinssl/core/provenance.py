"""Where a result came from: versions of the code and of what it stands on."""

from __future__ import annotations

import datetime
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

__version__ = "0.1.0"

# Up to its last slash: at the beginning of a word, or after what separates values.
ABSOLUTE_PATH = re.compile(r"(^|[=,;])(?:~[^/\\]*|[A-Za-z]:)?[/\\](?:[^=,;]*[/\\])?")

STANDS_ON = ("torch", "numpy", "scipy", "nibabel", "SimpleITK", "blosc2", "scikit-image")


def versions() -> dict[str, str]:
    """Versions of Python, swinssl and the libraries that its numbers depend on."""
    found = {"python": platform.python_version(), "swinssl": __version__}
    for name in STANDS_ON:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def now() -> str:
    """The time, as local time with its offset; in UTC where the time zone that is set is none."""
    try:
        local = datetime.datetime.now().astimezone()
    except ValueError:  # TZ with an offset of a day or more
        local = datetime.datetime.now(datetime.UTC)
    return local.isoformat(timespec="seconds")


def without_folders(word: str) -> str:
    """A word of a command line without the folders of absolute paths in it, which may tell of users and patients."""
    return ABSOLUTE_PATH.sub(r"\1.../", word)


def revision() -> str | None:
    """The git revision of the checkout that the code runs from, with `+changes` where it was edited; None elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        edited = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if edited else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
