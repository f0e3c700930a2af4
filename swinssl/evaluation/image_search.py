"""Where the images are that belong to label maps, for the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swinssl.dataset.case import FIRST_CHANNEL, case_name
from swinssl.imageio.formats import images_in

IMAGE_FOLDERS = ("imagesTr", "imagesTs")


def find_images(case_ids: Sequence[str], images: Path) -> dict[str, Path]:
    """The first channel of each case's image, `<case>_0000<ending>` or `<case><ending>`; some may have none.

    Args:
        images: a folder, or the image of the only case.
    """
    if images.is_file():
        return {case_ids[0]: images} if len(case_ids) == 1 else {}
    files = {case_name(path): path for path in images_in(images)}
    named = {case_id: files.get(case_id + FIRST_CHANNEL, files.get(case_id)) for case_id in case_ids}
    return {case_id: path for case_id, path in named.items() if path is not None}


def find_images_beside(case_ids: Sequence[str], folders: Sequence[Path]) -> dict[str, Path]:
    """The same, in the `imagesTr` and `imagesTs` of raw data set folders; the first that has the case."""
    found: dict[str, Path] = {}
    for folder in folders:
        for name in IMAGE_FOLDERS:
            if (folder / name).is_dir():
                found = {**find_images(case_ids, folder / name), **found}
    return found
