"""A trained model as one file to share: a zip of plans, description and weights, with their hashes.

    manifest.json                format, version, model name, and length and SHA-256 of each other member
    swinsslPlans.json, dataset.json
    postprocessing.json          if the model has one (clean_up.json in archives of swinssl 0.1.0)
    fold_<k>/model.safetensors   one per fold

Archives are untrusted input: only files of these names are extracted, no larger than the manifest and the limits allow,
and nothing is placed among the models before the whole archive has been verified.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.workspace import safe_name
from swinssl.inference.postprocessing import POSTPROCESSING_FILE, POSTPROCESSING_FILE_0_1_0
from swinssl.inference.trained_model import DATASET_FILE, WEIGHTS_FILE, TrainedModel, fold_folder
from swinssl.preprocessing.plans import PLANS_FILE

MANIFEST = "manifest.json"
DESCRIPTIONS = (PLANS_FILE, DATASET_FILE)
OPTIONAL = (POSTPROCESSING_FILE, POSTPROCESSING_FILE_0_1_0)
WEIGHTS = re.compile(rf"fold_(0|[1-9][0-9]{{0,2}}|all)/{re.escape(WEIGHTS_FILE)}")

MOST_MEMBERS = 64
MOST_WEIGHTS_BYTES = 8 * 2**30
MOST_TOTAL_BYTES = 32 * 2**30
MOST_TOTAL_BYTES = 32 * 2**30
MOST_TEXT_BYTES = 16 * 2**20
# Compression ratio of text; weights hardly compress.
MOST_RATIO = 200
PIECE = 1 << 20
ASK = "Ask its author for another copy."
FREE_SPACE = "Free some space there; verify unpacks into the folder named by TMPDIR."


class ArchivedFile(BaseModel):
    """Length and SHA-256 of a member."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """The table of contents of an archive.

    Args:
        name: of the model folder.
        files: every other member, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["swinssl-archive"] = "swinssl-archive"
    version: Literal[1] = 1
    name: str
    files: dict[str, ArchivedFile]


def export_model(model: TrainedModel, path: Path) -> Manifest:
    """Write a model's archive atomically, without other files of its folder (checkpoints, logs).

    It contains no information about the training cases.

    Args:
        model: with the folds to include.
    """
    name = safe_name(model.folder.resolve().name, what=f"model {model.folder}")
    weights = [f"{fold_folder(Path(), fold)}/{WEIGHTS_FILE}" for fold in model.folds]
    # Not the folder's file, which in a model of swinssl 0.1.0 may contain information about the training cases.
    described = json.dumps(model.description, indent=2).encode()
    members: dict[str, Path | bytes] = {DATASET_FILE: described}
    if model.postprocessing is not None and not model.postprocessing_is_outdated:
        members[POSTPROCESSING_FILE] = model.postprocessing.model_dump_json(indent=2).encode()
    members.update({member: model.folder / member for member in (PLANS_FILE, *weights)})
    kept = {}
    for member, content in members.items():
        with _source(content) as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            kept[member] = ArchivedFile(bytes=source.seek(0, os.SEEK_END), sha256=digest)
    manifest = Manifest(name=name, files=kept)
    with files.atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_dated(MANIFEST), manifest.model_dump_json(indent=2))
        for member, content in members.items():
            with _source(content) as source, archive.open(_dated(member), "w", force_zip64=True) as out:
                shutil.copyfileobj(source, out, PIECE)
    return manifest


def _source(content: Path | bytes) -> io.BytesIO | io.BufferedReader:
    return io.BytesIO(content) if isinstance(content, bytes) else open(content, "rb")


def read_manifest(path: Path) -> Manifest:
    """The manifest of an archive, after its list of members was checked.

    Raises:
        UserError: not an archive of a model, or one with forbidden members.
    """
    with _opened(path) as archive:
        return _manifest(path, archive)


def verify_archive(path: Path) -> tuple[Manifest, tuple[str, ...]]:
    """Unpack an archive into a temporary folder and read its networks completely.

    Returns:
        The manifest and the model's `notes`.

    Raises:
        UserError: as for `import_model`.
    """
    with unpacked(path) as (manifest, model):
        return manifest, model.notes


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[tuple[Manifest, TrainedModel]]:
    """The manifest and the verified model of an archive, in a folder that exists as long as the context.

    Raises:
        UserError: as for `import_model`.
    """
    with tempfile.TemporaryDirectory(prefix="swinssl-verify-") as folder:
        manifest = _unpack(path, Path(folder), room=Path(folder).parent)
        yield manifest, _read_unpacked(path, Path(folder))


def import_model(path: Path, results: Path, *, name: str | None = None, force: bool = False) -> Path:
    """Unpack an archive as `results`/<data set>/<name>; an existing model stays until the archive is verified.

    Args:
        results: folder of all models.
        name: of the model; by default that in the archive.
        force: replace an existing model.

    Returns:
        The model folder.

    Raises:
        UserError: not an archive of a model, malicious or damaged, or the model folder exists.
    """
    with files.new_folder(results), tempfile.TemporaryDirectory(prefix=files.PREFIX, dir=results) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        manifest = _unpack(path, new, room=results)
        dataset = _read_unpacked(path, new).plans.dataset_name
        folder = (
            results
            / safe_name(dataset, what=f"{path}: data set")
            / safe_name(name or manifest.name, what=f"{path}: model")
        )
        if folder.exists() and not force:
            raise UserError(f"{folder}: exists already. Choose another --name, or replace it with --force.")
        folder.parent.mkdir(exist_ok=True)
        files.replace_folder(new, folder)
    return folder


def read_whole(folder: Path) -> TrainedModel:
    """The model of a folder, after its weights were read completely and used for a forward pass.

    Raises:
        UserError: as for `TrainedModel.open`, or a network's output for a patch is not finite.
    """
    import torch

    model = TrainedModel.open(folder)
    patch = torch.linspace(0, 1, math.prod(model.plans.patch_size)).reshape(1, 1, *model.plans.patch_size)
    image = patch.expand(1, len(model.plans.channel_names), -1, -1, -1)
    for fold, network in zip(model.folds, model.networks(torch.device("cpu")), strict=True):
        with torch.no_grad():
            if not torch.isfinite(network(image)).all():
                raise UserError(
                    f"{fold_folder(folder, fold) / WEIGHTS_FILE}: the network's output is NaN or infinite. The "
                    "training failed, or the weights were altered. Train again."
                )
    return model


def _read_unpacked(path: Path, folder: Path) -> TrainedModel:
    """`read_whole` of an unpacked archive; errors name the archive and the member instead of the folder."""
    try:
        return read_whole(folder)
    except UserError as error:
        named = str(error).replace(f"{folder}{os.sep}", f"{path}, ").replace(str(folder), str(path))
        raise UserError(named) from None


def _unpack(path: Path, folder: Path, *, room: Path) -> Manifest:
    """Unpack into `folder`; messages about a full disk name `room`, which is not temporary."""
    with _opened(path) as archive:
        manifest = _manifest(path, archive)
        needed = sum(expected.bytes for expected in manifest.files.values())
        if needed > shutil.disk_usage(room).free:
            raise UserError(f"{room}: unpacking {path} needs {needed / 1e9:.1f} GB. {FREE_SPACE}")
        for name, expected in manifest.files.items():
            digest = hashlib.sha256()
            try:
                written = _extract(path, archive, name, folder / name, digest.update, limit=expected.bytes)
            except OSError as error:
                if error.errno not in files.FULL_ERRNOS:
                    raise
                raise UserError(f"{room}: no space left to unpack {name} of {path}. {FREE_SPACE}") from None
            if written != expected.bytes or digest.hexdigest() != expected.sha256:
                raise UserError(f"{path}: {name} does not match the manifest. The archive is damaged. {ASK}")
    return manifest


def _extract(
    path: Path, archive: zipfile.ZipFile, name: str, target: Path, update: Callable[[bytes], None], *, limit: int
) -> int:
    """Write a member to `target` and pass each piece to `update`; returns the bytes written."""
    target.parent.mkdir(exist_ok=True)
    with open(target, "wb") as out:
        for piece in _pieces(path, archive, name, limit=limit):
            update(piece)
            out.write(piece)
        return out.tell()


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        files.open_regular(path).close()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the .zip that swinssl_model export wrote.") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder. Give the .zip that swinssl_model export wrote.") from None
    except PermissionError:
        raise UserError(f"{path}: you may not read it (permission denied). Ask its owner, or copy it.") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Give the .zip that swinssl_model export wrote.") from None
    with _damage(path, "the list of its members"):
        return zipfile.ZipFile(path)


def _manifest(path: Path, archive: zipfile.ZipFile) -> Manifest:
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise UserError(f"{path}: {len(members)} members; a model has at most {MOST_MEMBERS}. Refused. {ASK}")
    seen: set[str] = set()
    for member in members:
        _refuse_harmful(path, member)
        if member.filename.lower() in seen:  # the same file on case-insensitive systems
            raise UserError(f"{path}: contains {member.filename!r} twice. Refused. {ASK}")
        seen.add(member.filename.lower())
    if MANIFEST not in seen:
        raise UserError(f"{path}: has no {MANIFEST}. Give an archive that swinssl_model export wrote.")
    text = b"".join(_pieces(path, archive, MANIFEST, limit=MOST_TEXT_BYTES))
    try:
        manifest = Manifest.model_validate(json.loads(text))
    except (ValueError, RecursionError, ValidationError) as error:
        raise UserError(f"{path}: {MANIFEST} cannot be read ({_first_line(error)}). {ASK}") from None
    safe_name(manifest.name, what=f"{path}: model")
    archived, declared = {member.filename for member in members} - {MANIFEST}, set(manifest.files)
    if archived != declared:
        raise UserError(f"{path}: {', '.join(sorted(archived ^ declared))}: not in both manifest and archive. {ASK}")
    if not declared.issuperset(DESCRIPTIONS) or not any(WEIGHTS.fullmatch(name) for name in declared):
        raise UserError(f"{path}: contains no complete model ({', '.join(sorted(declared))}). {ASK}")
    if (total := sum(member.file_size for member in members)) > MOST_TOTAL_BYTES:
        raise UserError(f"{path}: would unpack to {total / 1e9:.1f} GB. Refused. {ASK}")
    for member in members:
        if member.filename != MANIFEST and member.file_size != manifest.files[member.filename].bytes:
            raise UserError(f"{path}: the length of {member.filename} differs from the manifest. {ASK}")
    return manifest


def _refuse_harmful(path: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    weights = WEIGHTS.fullmatch(name) is not None
    if not weights and name not in (MANIFEST, *DESCRIPTIONS, *OPTIONAL):
        raise UserError(f"{path}: contains {name!r}, which is not part of a model. Refused. {ASK}")
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or member.flag_bits & 1:
        raise UserError(f"{path}: {name} is a link, a device or encrypted. Refused. {ASK}")
    if member.file_size > (MOST_WEIGHTS_BYTES if weights else MOST_TEXT_BYTES):
        raise UserError(f"{path}: {name} would be {member.file_size / 1e9:.1f} GB. Refused. {ASK}")
    if member.file_size > MOST_RATIO * max(member.compress_size, 1):
        raise UserError(f"{path}: {name} would expand more than {MOST_RATIO} times. Refused. {ASK}")


def _pieces(path: Path, archive: zipfile.ZipFile, name: str, *, limit: int) -> Iterator[bytes]:
    """The content of a member, piece by piece; more than `limit` bytes are an error, whatever the header says."""
    size = 0
    with _damage(path, name), archive.open(name) as stream:
        while piece := stream.read(PIECE):
            size += len(piece)
            if size > limit:
                raise UserError(f"{path}: {name} is longer than its header says. Refused. {ASK}")
            yield piece


@contextlib.contextmanager
def _damage(path: Path, what: str) -> Iterator[None]:
    """Turn what zipfile raises on damaged archives into a UserError."""
    try:
        yield
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError, zlib.error) as error:
        why: Exception = error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a seek to a position before the beginning of the file
            raise
        why = error
    else:
        return
    raise UserError(f"{path}: {what} cannot be read ({_first_line(why)}): not a zip archive, or damaged. {ASK}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _dated(name: str) -> zipfile.ZipInfo:
    """A member with a fixed date, so that the archive of a model is always the same."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info
