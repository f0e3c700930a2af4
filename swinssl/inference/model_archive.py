"""A trained model as one file that can be given to others: a zip of plans, description and weights, with their hashes.

    manifest.json                format, version, name of the model, and of each other member length and SHA-256
    swinsslPlans.json, dataset.json
    clean_up.json                where the model has one
    fold_<k>/model.safetensors   one a fold

Archives come from strangers: nothing is taken from one but files of these names, no larger than the manifest and the
caps say, and nothing of it stands where models are before all of it was found to be right.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swinssl import files
from swinssl.errors import UserError
from swinssl.inference.clean_up import CLEAN_UP_FILE
from swinssl.inference.trained_model import DATASET_FILE, WEIGHTS_FILE, TrainedModel, fold_folder
from swinssl.preprocessing.plans import PLANS_FILE
from swinssl.workspace import safe_name

MANIFEST = "manifest.json"
DESCRIPTIONS = (PLANS_FILE, DATASET_FILE)
OPTIONAL = (CLEAN_UP_FILE,)
WEIGHTS = re.compile(rf"fold_(0|[1-9]\d{{0,2}}|all)/{re.escape(WEIGHTS_FILE)}")

MOST_MEMBERS = 64
MOST_WEIGHTS_BYTES = 8 * 2**30
MOST_TEXT_BYTES = 16 * 2**20
# Of text; weights hardly shrink.
MOST_RATIO = 200
PIECE = 1 << 20
ASK = "Ask whoever made it for another copy."


class ArchivedFile(BaseModel):
    """Length and content hash of a member."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """What an archive says it holds.

    Args:
        name: of the model's folder.
        files: every other member, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["swinssl-archive"] = "swinssl-archive"
    version: Literal[1] = 1
    name: str
    files: dict[str, ArchivedFile]


def export_model(model: TrainedModel, path: Path) -> Manifest:
    """Write a model's archive, atomically; what else its folder has (checkpoints, logs) stays behind.

    Args:
        model: with the folds that are to go into it.
    """
    name = safe_name(model.folder.resolve().name, what=f"model {model.folder}")
    cleaned = model.clean_up is not None and not model.clean_up_is_outdated
    texts = (*DESCRIPTIONS, *OPTIONAL) if cleaned else DESCRIPTIONS
    names = [*texts, *(f"{fold_folder(Path(), fold)}/{WEIGHTS_FILE}" for fold in model.folds)]
    kept = {
        member: ArchivedFile(
            bytes=(model.folder / member).stat().st_size, sha256=files.sha256_of(model.folder / member)
        )
        for member in names
    }
    manifest = Manifest(name=name, files=kept)
    with files.atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_dated(MANIFEST), manifest.model_dump_json(indent=2))
        for member in names:
            with (
                open(model.folder / member, "rb") as source,
                archive.open(_dated(member), "w", force_zip64=True) as out,
            ):
                shutil.copyfileobj(source, out, PIECE)
    return manifest


def read_manifest(path: Path) -> Manifest:
    """What an archive says it holds, after its list of members was found to be harmless.

    Raises:
        UserError: no archive of a model, or one with members that must not be there.
    """
    with _opened(path) as archive:
        return _manifest(path, archive)


def verify_archive(path: Path) -> Manifest:
    """Unpack an archive into a folder that is thrown away, and read its networks whole.

    Raises:
        UserError: as `import_model`.
    """
    with tempfile.TemporaryDirectory(prefix="swinssl-verify-") as folder:
        manifest = _unpack(path, Path(folder))
        read_whole(Path(folder))
    return manifest


def import_model(path: Path, results: Path, *, name: str | None = None, force: bool = False) -> Path:
    """Unpack an archive as `results`/<data set>/<name>; until all of it is right, what is there stays as it is.

    Args:
        results: folder of all models.
        name: of the model; by default the one that the archive has.
        force: replace a model that is there.

    Returns:
        The model's folder.

    Raises:
        UserError: no archive of a model, harmful, damaged, or something is there already.
    """
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=files.PREFIX, dir=results) as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        manifest = _unpack(path, new)
        dataset = read_whole(new).plans.dataset_name
        folder = (
            results
            / safe_name(dataset, what=f"{path}: data set")
            / safe_name(name or manifest.name, what=f"{path}: model")
        )
        if folder.exists() and not force:
            raise UserError(f"{folder}: is there already. Choose another --name, or replace it with --force.")
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    return folder


def read_whole(folder: Path) -> TrainedModel:
    """The model of a folder, after its weights were read to the last number; errors as of `TrainedModel`."""
    import torch

    model = TrainedModel.open(folder)
    model.networks(torch.device("cpu"))
    return model


def _unpack(path: Path, folder: Path) -> Manifest:
    with _opened(path) as archive:
        manifest = _manifest(path, archive)
        for name, expected in manifest.files.items():
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            digest = hashlib.sha256()
            with open(target, "wb") as out:
                for piece in _pieces(path, archive, name, limit=expected.bytes):
                    digest.update(piece)
                    out.write(piece)
                written = out.tell()
            if written != expected.bytes or digest.hexdigest() != expected.sha256:
                raise UserError(f"{path}: {name} is not what the manifest says. The archive is damaged. {ASK}")
    return manifest


def _opened(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give the .zip that swinssl_model export wrote.")
    with _damage(path, "the list of its members"):
        return zipfile.ZipFile(path)


def _manifest(path: Path, archive: zipfile.ZipFile) -> Manifest:
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise UserError(f"{path}: {len(members)} members, where a model has at most {MOST_MEMBERS}. Not taken. {ASK}")
    seen: set[str] = set()
    for member in members:
        _refuse_harmful(path, member)
        if member.filename.lower() in seen:  # one file on systems that do not tell case apart
            raise UserError(f"{path}: has {member.filename!r} twice. Not taken. {ASK}")
        seen.add(member.filename.lower())
    if MANIFEST not in seen:
        raise UserError(f"{path}: has no {MANIFEST}. Give an archive that swinssl_model export wrote.")
    text = b"".join(_pieces(path, archive, MANIFEST, limit=MOST_TEXT_BYTES))
    try:
        manifest = Manifest.model_validate(json.loads(text))
    except (ValueError, RecursionError, ValidationError) as error:
        raise UserError(f"{path}: {MANIFEST} cannot be read ({_first_line(error)}). {ASK}") from None
    safe_name(manifest.name, what=f"{path}: model")
    here, said = {member.filename for member in members} - {MANIFEST}, set(manifest.files)
    if here != said:
        raise UserError(f"{path}: {', '.join(sorted(here ^ said))}: not in both manifest and archive. {ASK}")
    if not said.issuperset(DESCRIPTIONS) or not any(WEIGHTS.fullmatch(name) for name in said):
        raise UserError(f"{path}: holds no whole model ({', '.join(sorted(said))}). {ASK}")
    for member in members:
        if member.filename != MANIFEST and member.file_size != manifest.files[member.filename].bytes:
            raise UserError(f"{path}: {member.filename} has another length than the manifest says. {ASK}")
    return manifest


def _refuse_harmful(path: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    weights = WEIGHTS.fullmatch(name) is not None
    if not weights and name not in (MANIFEST, *DESCRIPTIONS, *OPTIONAL):
        raise UserError(f"{path}: has {name!r}, which is no part of a model. Not taken. {ASK}")
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or member.flag_bits & 1:
        raise UserError(f"{path}: {name} is a link, a device or encrypted. Not taken. {ASK}")
    if member.file_size > (MOST_WEIGHTS_BYTES if weights else MOST_TEXT_BYTES):
        raise UserError(f"{path}: {name} would be {member.file_size / 1e9:.1f} GB. Not taken. {ASK}")
    if member.file_size > MOST_RATIO * max(member.compress_size, 1):
        raise UserError(f"{path}: {name} would grow more than {MOST_RATIO} times. Not taken. {ASK}")


def _pieces(path: Path, archive: zipfile.ZipFile, name: str, *, limit: int) -> Iterator[bytes]:
    """The content of a member, piece by piece; more than `limit` bytes are an error, whatever the header says."""
    taken = 0
    with _damage(path, name), archive.open(name) as stream:
        while piece := stream.read(PIECE):
            taken += len(piece)
            if taken > limit:
                raise UserError(f"{path}: {name} is longer than it says. Not taken. {ASK}")
            yield piece


@contextlib.contextmanager
def _damage(path: Path, what: str) -> Iterator[None]:
    """What zipfile raises on damaged archives, as an error in words."""
    try:
        yield
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError, zlib.error) as error:
        why: Exception = error
    except OSError as error:
        if error.errno != errno.EINVAL:  # what a place before the beginning of the file comes to
            raise
        why = error
    else:
        return
    raise UserError(f"{path}: {what} cannot be read ({_first_line(why)}): no zip archive, or a damaged one. {ASK}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _dated(name: str) -> zipfile.ZipInfo:
    """The same archive of the same model, whenever and wherever it is written."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info
