"""Hashes of image files, kept: ten thousand CTs are not read again at every start."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from swinssl.core import files

CACHE_FILE = "image_hashes.json"


def hashes_of(images: Iterable[Path], folder: Path) -> dict[Path, str]:
    """SHA-256 of the image files that are there; from a cache in `folder` where size and time are as they were."""
    cache = folder / CACHE_FILE
    kept: dict[str, Any] = {}
    if cache.is_file():
        kept = files.read_json(cache, what="hashes of images", remedy="Delete it, and it is made anew.")
    found: dict[Path, str] = {}
    new = False
    for path in images:
        if not path.is_file():
            continue
        now = [path.stat().st_size, path.stat().st_mtime_ns]
        known = kept.get(str(path.absolute()))
        if not known or known[:2] != now:
            known, new = [*now, files.sha256_of(path)], True
            kept[str(path.absolute())] = known
        found[path] = known[2]
    if new and folder.is_dir():
        files.write_json(cache, kept)
    return found
