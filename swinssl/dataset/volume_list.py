"""A list of volumes: a text file that names images one a line, wherever they lie, to pretrain on.

    # channel: CT
    /archive/2021/p007/ct.nii.gz
    more/p008.nrrd

Paths are absolute, or relative to the list's folder; `~` and variables of the environment count, quotes round a path do
not. Blank lines and other lines that begin with # are passed over. A case is one image, in any format, without a label.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from swinssl.core import files
from swinssl.core.text import did_you_mean
from swinssl.dataset.case import Case, case_name, id_findings, normal_form
from swinssl.dataset.case_listing import Listing, resolve_listed, usual_ending
from swinssl.dataset.checks.finding import Finding
from swinssl.dataset.description import Description
from swinssl.imageio.formats import image_ending, known_endings, without_ending

CHANNEL = re.compile(r"#\s*channel\s*:\s*(\S.*)", re.IGNORECASE)
NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f]")
FORM = "Give a text file in UTF-8 with the path of one image per line."
# Looking for a near name takes 16 ms in a folder of 1000 files, which for a long list of missing ones adds up.
NEAR_NAMES = 5

# Code, message and remedy.
Problem = tuple[str, str, str]


def read_volume_list(file: Path) -> tuple[Description, Listing]:
    """What a list says of its channel, and its cases; no image is opened.

    A case's id is its file's name. Where an earlier line has that name, as few folders of the path as tell the two
    apart come before it: lines that are added at the end change no other line's id.
    """
    reader = _Reader(file)
    lines = reader.lines()
    channel_names = reader.channel([text for _, text in lines if text.startswith("#")])
    read = [reader.case(number, text) for number, text in lines if not text.startswith("#")]
    cases = sorted((case for case in read if case is not None), key=lambda case: case.id)
    findings = (*reader.findings, *id_findings([case.id for case in cases]))
    return Description(channel_names=channel_names), Listing(tuple(cases), 1, usual_ending(cases), findings)


class _Reader:
    """Collects findings on the way."""

    def __init__(self, file: Path) -> None:
        self.file, self.folder = file, file.parent
        self.findings: list[Finding] = []
        self.line_of: dict[Path, int] = {}
        self.of_stem: dict[str, Path] = {}
        self.taken: set[str] = set()
        self.missing = 0

    def report(self, code: str, path: Path, message: str, remedy: str) -> None:
        name = path.relative_to(self.folder) if path.is_relative_to(self.folder) else path
        self.findings.append(Finding(code, name.as_posix(), message, remedy))

    def lines(self) -> list[tuple[int, str]]:
        """Number and text of each line that is not blank."""
        try:
            text = files.read_text(self.file)
        except OSError as error:
            self.report("E114", self.file, f"cannot be opened ({error.strerror})", "Change its permissions.")
            return []
        except UnicodeDecodeError:
            text = "\0"
        if NOT_TEXT.search(text):
            self.report("E114", self.file, "is not UTF-8 text", FORM)
            return []
        lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if all(line.startswith("#") for _, line in lines):
            self.report("E110", self.file, "names no image", FORM)
        return lines

    def channel(self, comments: Sequence[str]) -> tuple[str, ...]:
        """The channel's name; none where the list does not say."""
        names = tuple(dict.fromkeys(match[1] for comment in comments if (match := CHANNEL.fullmatch(comment))))
        if len(names) > 1:
            message = f"names the channels {', '.join(names)}; a volume has one"
            self.report("E114", self.file, message, "Keep one of these lines; make a list for each modality.")
        elif not names and not self.findings:
            message = "does not name the channel; its values decide whether it is CT"
            self.report("N107", self.file, message, 'No action needed; the line "# channel: CT" would declare it.')
        return names[:1]

    def case(self, number: int, text: str) -> Case | None:
        """The case of a line; one whose image is missing fails by itself."""
        path, where = self.resolved(text), f"line {number} of {self.file.name}"
        if problem := _of_no_image(path) or self.repeated(path, number):
            code, message, remedy = problem
            self.report(code, path, f"{message} ({where})", remedy)
            return None
        if not path.is_file():
            self.missing += 1
            self.report("E106", path, f"no such file ({where})", _way_to(path, look=self.missing <= NEAR_NAMES))
        case_id = _free_id(path, self.taken)
        self.taken.add(case_id.lower())
        return Case(case_id, (path,))

    def resolved(self, written: str) -> Path:
        if len(written) > 1 and written[0] == written[-1] and written[0] in "\"'":
            written = written[1:-1]
        path = resolve_listed(written, self.folder)
        if os.sep == "/" and "\\" in written and not os.path.lexists(path):
            path = resolve_listed(written.replace("\\", "/"), self.folder)  # written on Windows
        return path

    def repeated(self, path: Path, number: int) -> Problem | None:
        first = self.line_of.setdefault(path.resolve(), number)
        if first != number:
            return "E112", f"is named in line {first} already", "Remove one of these lines."
        other = self.of_stem.setdefault(os.path.normpath(path.with_name(without_ending(path))), path)
        if other != path:
            return "E112", f"is the same image as {other.name} by its name", "Remove one of these lines."
        return None


def _of_no_image(path: Path) -> Problem | None:
    """What is wrong with a path that can be no image's, whether or not there is such a file."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if "*" in path.name:
            return "E114", "is a pattern, and patterns are not expanded", "List the images one per line, as ls -1 does."
        mode = stat.S_IFREG
    except OSError as error:  # too long a name, a folder that may not be entered
        return "E114", f"cannot be opened: {error.strerror}", "Correct the line, or change permissions."
    if stat.S_ISDIR(mode):
        return "E114", "is a folder", "List the images in it, one per line."
    if image_ending(path) is None or not stat.S_ISREG(mode):
        remedy = f"Convert it to one of {', '.join(known_endings())}, or remove the line."
        return "E114", "is not an image that swinssl reads", remedy
    return None


def _way_to(missing: Path, *, look: bool) -> str:
    """What to do about a missing image."""
    if "$" in str(missing):
        return "Set the variable in its path, or correct the line."
    siblings = sorted(path.name for path in missing.parent.iterdir()) if look and missing.parent.is_dir() else ()
    return f"{did_you_mean(missing.name, siblings)}Put the file there, or correct the line."


def _free_id(path: Path, taken: set[str]) -> str:
    """The file's name, after folders of its path until it is none of those taken (in small letters)."""
    *folders, _ = Path(os.path.normpath(path)).parts[1:]
    case_id = case_name(path)
    for folder in itertools.chain(reversed(folders), itertools.repeat("")):
        if case_id.lower() not in taken:
            break
        case_id = f"{normal_form(folder)}__{case_id}"
    return case_id
