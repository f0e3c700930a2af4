"""The cases to segment: which files of a folder or of a list are the channels of one case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import counted, listed
from swinssl.dataset.case import CHANNEL, case_name, label_names, refuse_unusable, split_channels
from swinssl.imageio.formats import dicom_hint, images_in, known_endings, required_ending, single_file_ending

# Cases named in one message; a folder may have hundreds.
NAMED = 5


@dataclass(frozen=True)
class InputCase:
    """One case: its id and one file per channel, in order."""

    id: str
    images: tuple[Path, ...]

    @property
    def result_name(self) -> str:
        """File name of its label map: the id with the images' ending, always a single file."""
        return self.id + single_file_ending(self.images[0])


def find_cases(inputs: Sequence[Path], channel_names: Sequence[str]) -> tuple[InputCase, ...]:
    """The cases of a folder, sorted by id, or the one case whose files are given.

    In a folder the channels of a case are `<case>_0000<ending>`, `<case>_0001<ending>` and so on, as in nnU-Net. With
    one channel, `<case><ending>` is accepted too, and four digits may number cases (`split_channels`). A single file
    gets the same id as when its whole folder is read.

    Args:
        inputs: one folder, or the files of one case in the order of its channels.
        channel_names: what the model expects.

    Raises:
        UserError: there are no images, a case has other channels than expected or a name that cannot be stored, or two
            files are the same channel of one case.
    """
    folders = [path for path in inputs if path.is_dir()]
    if folders and len(inputs) > 1:
        raise UserError(f"-i {folders[0]}: give one folder, or the files of one case (-i repeated), not both.")
    if not folders:
        return (_case_of_files(inputs, channel_names),)
    return _cases_of_folder(folders[0], channel_names)


def _case_of_files(images: Sequence[Path], channel_names: Sequence[str]) -> InputCase:
    for path in images:
        try:
            files.open_regular(path).close()
        except FileNotFoundError:
            raise UserError(
                f"-i {path}: no such file or folder. Give a folder of images, or one image file per channel."
            ) from None
        except OSError as error:
            raise UserError(
                f"-i {path}: cannot be read ({error.strerror}). Give a folder of images, or one image file per channel."
            ) from None
        required_ending(path)
    if len(images) != len(channel_names):
        raise UserError(
            f"-i: {counted(len(images), 'file')}; the model expects {expected_channels(channel_names)}. "
            "Give -i once for each channel, in this order."
        )
    case_id = _case_id(images[0], channels=len(channel_names))
    refuse_unusable([case_id], source=images[0])
    return InputCase(case_id, tuple(images))


def _case_id(first: Path, *, channels: int) -> str:
    """The id that a file has when its whole folder is read, so that it does not depend on what is given."""
    name = case_name(first)
    names = [case_name(path) for path in images_in(first.parent)]
    for case_id, by_channel in split_channels(names, channels=channels, labels=label_names(first.parent)).items():
        if name in (by_channel.get(0), by_channel.get(None)):
            return case_id
    return name


def _cases_of_folder(folder: Path, channel_names: Sequence[str]) -> tuple[InputCase, ...]:
    paths = images_in(folder)
    if not paths and (dicom := dicom_hint(folder)) is not None:
        raise UserError(f"{folder}: no images that swinssl reads. {dicom}")
    if not paths:
        within = next((name for name in ("imagesTs", "imagesTr") if (folder / name).is_dir()), None)
        hint = f" Did you mean {folder / within}?" if within else ""
        raise UserError(f"{folder}: no images here; expected files ending with {', '.join(known_endings())}.{hint}")
    by_case = _channels_by_case(paths, channels=len(channel_names))
    refuse_unusable(sorted(by_case), source=folder)
    wanted = list(range(len(channel_names)))
    wrong = {case_id: sorted(channels) for case_id, channels in by_case.items() if sorted(channels) != wanted}
    if wrong:
        actual = [f"{case_id} has {', '.join(f'{n:04d}' for n in channels)}" for case_id, channels in wrong.items()]
        expected = expected_channels(channel_names)
        raise UserError(
            f"{folder}: wrong channels: {listed(actual, most=NAMED, separator='; ')}. The model expects {expected}. "
            "Add or remove files; their names are <case>_0000, <case>_0001 ... in this order."
        )
    return tuple(
        InputCase(case_id, tuple(by_case[case_id][number] for number in wanted)) for case_id in sorted(by_case)
    )


def _channels_by_case(paths: Sequence[Path], *, channels: int) -> dict[str, dict[int, Path]]:
    """Files by case and channel number."""
    files: dict[str, Path] = {}
    cases: dict[str, dict[int, Path]] = {}
    for path in paths:
        if (other := files.setdefault(case_name(path), path)) != path:
            raise _same_place(other, path, CHANNEL.sub(r"\1", case_name(path)), 0)
    split = split_channels(list(files), channels=channels, labels=label_names(paths[0].parent))
    for case_id, by_channel in split.items():
        if channels > 1 and None in by_channel:
            raise UserError(
                f"{paths[0].parent}: {files[case_id].name} has no channel number, but the model has several channels. "
                "Name the files <case>_0000, <case>_0001 ..., or remove this file."
            )
        if 0 in by_channel and None in by_channel:
            raise _same_place(files[by_channel[None]], files[by_channel[0]], case_id, 0)
        cases[case_id] = {number or 0: files[name] for number, name in by_channel.items()}
    return cases


def _same_place(first: Path, other: Path, case_id: str, number: int) -> UserError:
    return UserError(f"{first} and {other.name}: both are channel {number:04d} of case {case_id}. Keep one of them.")


def expected_channels(channel_names: Sequence[str]) -> str:
    """The channels of a model in words, with their numbers."""
    channels = ", ".join(f"{number:04d} ({name})" for number, name in enumerate(channel_names))
    return f"{counted(len(channel_names), 'channel')}: {channels}"
