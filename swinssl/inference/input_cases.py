"""The cases that are to be segmented: which files of a folder, or of a list, are the channels of one case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swinssl.errors import UserError
from swinssl.imageio.endings import ENDINGS, images_in, required_ending, without_ending

CHANNEL = re.compile(r"(.+)_(\d{4})")
# Cases named in one message; a folder may have hundreds.
NAMED = 5


@dataclass(frozen=True)
class InputCase:
    """One case: its id, and a file for each channel in order."""

    id: str
    images: tuple[Path, ...]

    @property
    def result_name(self) -> str:
        """File name of its label map: the id with the images' ending, a single file in any case."""
        ending = required_ending(self.images[0])
        return self.id + (".mha" if ending == ".mhd" else ending)


def find_cases(inputs: Sequence[Path], channel_names: Sequence[str]) -> tuple[InputCase, ...]:
    """The cases of a folder, sorted by id, or the one case whose files are given.

    In a folder the channels of a case are `<case>_0000<ending>`, `<case>_0001<ending>` and so on, as nnU-Net has them;
    where there is one channel, `<case><ending>` will do. Other files are left alone.

    Args:
        inputs: one folder, or the files of one case in the order of its channels.
        channel_names: what the model expects.

    Raises:
        UserError: nothing is there, a case has other channels than expected, or two files claim the same place.
    """
    folders = [path for path in inputs if path.is_dir()]
    if folders and len(inputs) > 1:
        raise UserError(f"-i {folders[0]}: give one folder, or the files of one case (-i repeated), not both.")
    if not folders:
        return (_case_of_files(inputs, channel_names),)
    return _cases_of_folder(folders[0], channel_names)


def _case_of_files(images: Sequence[Path], channel_names: Sequence[str]) -> InputCase:
    for path in images:
        if not path.is_file():
            raise UserError(f"-i {path}: no such file or folder. Give a folder of images, or one image file a channel.")
        required_ending(path)
    stem = without_ending(images[0])
    if len(images) != len(channel_names):
        raise UserError(
            f"-i: {len(images)} file{'s' if len(images) > 1 else ''}; the model expects {_expected(channel_names)}. "
            "Give -i once for each channel, in this order."
        )
    match = CHANNEL.fullmatch(stem)
    return InputCase(match[1] if match and match[2] == "0000" else stem, tuple(images))


def _cases_of_folder(folder: Path, channel_names: Sequence[str]) -> tuple[InputCase, ...]:
    paths = images_in(folder)
    if not paths:
        within = next((name for name in ("imagesTs", "imagesTr") if (folder / name).is_dir()), None)
        hint = f" Did you mean {folder / within}?" if within else ""
        raise UserError(f"{folder}: no images here; expected files ending with {', '.join(ENDINGS)}.{hint}")
    by_case = _channels_by_case(paths, single=len(channel_names) == 1)
    for case_id, channels in by_case.items():
        for number, same in channels.items():
            if len(same) > 1:
                raise UserError(
                    f"{same[0]} and {same[1].name}: both are channel {number:04d} of case {case_id}. Keep one of them."
                )
    wanted = list(range(len(channel_names)))
    wrong = {case_id: sorted(channels) for case_id, channels in by_case.items() if sorted(channels) != wanted}
    if wrong:
        found = [f"{case_id} has {', '.join(f'{n:04d}' for n in own)}" for case_id, own in wrong.items()]
        expected = _expected(channel_names)
        more = f" and {len(found) - NAMED} more cases" if len(found) > NAMED else ""
        raise UserError(
            f"{folder}: wrong channels: {'; '.join(found[:NAMED])}{more}. The model expects {expected}. Add or remove "
            "files; their names are <case>_0000, <case>_0001 ... in this order."
        )
    return tuple(
        InputCase(case_id, tuple(by_case[case_id][number][0] for number in wanted)) for case_id in sorted(by_case)
    )


def _channels_by_case(paths: Sequence[Path], *, single: bool) -> dict[str, dict[int, list[Path]]]:
    """Files by case and channel number."""
    matches = {path: CHANNEL.fullmatch(without_ending(path)) for path in paths}
    if single:
        # `scan_2020` is a name; a four-digit ending means a channel only where there is a first one beside it.
        begun = {match[1] for match in matches.values() if match and match[2] == "0000"}
        matches = {path: match if match and match[1] in begun else None for path, match in matches.items()}
    elif plain := [path.name for path, match in matches.items() if match is None]:
        raise UserError(
            f"{paths[0].parent}: {plain[0]} has no channel number, and the model has several channels. Name the files "
            "<case>_0000, <case>_0001 ... , or take this one out."
        )
    found: dict[str, dict[int, list[Path]]] = {}
    for path, match in matches.items():
        case_id, number = (match[1], int(match[2])) if match else (without_ending(path), 0)
        found.setdefault(case_id, {}).setdefault(number, []).append(path)
    return found


def _expected(channel_names: Sequence[str]) -> str:
    listed = ", ".join(f"{number:04d} ({name})" for number, name in enumerate(channel_names))
    return f"{len(channel_names)} channel{'s' if len(channel_names) > 1 else ''}: {listed}"
