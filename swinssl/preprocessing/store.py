"""The preprocessed data set on disk: one folder per case, partial reads, safe to read from several threads.

    <folder>/swinsslPlans.json, dataset.json
    <folder>/gt_segmentations/<case><ending>    reference labels, as they came
    <folder>/cases/<case>/image.b2nd            (C, Z, Y, X) float16 or float32, blosc2
                          label.b2nd            (Z, Y, X) codes of `LabelSet`, blosc2; only of annotated cases
                          locations.safetensors flat voxel indices per code; only of annotated cases
                          properties.json       written last: a case exists if and only if this file does

docs/preprocessed-format.md says the same for readers in other languages.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.geometry import Box, Shape
from swinssl.core.rng import generator
from swinssl.core.text import sentences
from swinssl.dataset.labels import LabelSet
from swinssl.preprocessing.case_properties import (
    REMEDY,
    STORE_VERSION,
    CaseProperties,
    StoredFile,
    check_version,
    content_hash,
)
from swinssl.preprocessing.plans import Plans

__all__ = ["CaseProperties", "PreprocessedCase", "PreprocessedDataset", "case_folder", "content_hash", "write_case"]

CASES = "cases"
REFERENCES = "gt_segmentations"
IMAGE, LABEL, LOCATIONS, PROPERTIES = "image.b2nd", "label.b2nd", "locations.safetensors", "properties.json"

# A block is the smallest unit that is decoded: with 32^3, reading a 96^3 patch decodes 1.8 times its voxels on average;
# a chunk of 96^3 keeps the index small.
BLOCK, CHUNK = 32, 96
# Smaller arrays are assembled in memory: blosc2 opens the file for each part, which takes a millisecond in all.
AT_ONCE_BYTES = 2**22
MAX_LOCATIONS = 100_000
CHECKING_THREADS = 2
# Damaged files named in one message.
SHOWN = 5

# A blosc2 frame: its magic number, the offset of its metadata count, the bytes read of it, and the only metadata name
# of a plain array.
FRAME_MAGIC, FRAME_METADATA, FRAME_HEAD_BYTES, PLAIN_ARRAY = b"\x9e\xa8b2frame\0", 92, 4096, b"b2nd"

Codec = Literal["lz4", "lz4hc", "zstd"]


class PreprocessedDataset:
    """The preprocessed cases of a data set and the plans that they were made with."""

    def __init__(self, folder: Path, plans: Plans, case_ids: tuple[str, ...]) -> None:
        self.folder = folder
        self.plans = plans
        self.case_ids = case_ids
        self._cases: dict[str, PreprocessedCase] = {}

    @classmethod
    def open(cls, folder: Path) -> PreprocessedDataset:
        """The data set in `<root>/preprocessed/<name>`.

        Raises:
            UserError: no plans, or no preprocessed case.
        """
        folder = Path(folder)
        plans = Plans.read(folder)
        case_ids = tuple(sorted(path.parent.name for path in (folder / CASES).glob(f"*/{PROPERTIES}")))
        if not case_ids:
            raise UserError(f"{folder / CASES}: no preprocessed case here. {REMEDY}")
        return cls(folder, plans, case_ids)

    def check(self, case_ids: Iterable[str]) -> None:
        """Verify the hashes of the cases' files, once per file.

        Raises:
            UserError: files are missing or damaged; the message names them.
        """

        def fault(case_id: str) -> str | None:
            try:
                self.case(case_id).check()
            except UserError as error:
                return str(error).removesuffix(f" {REMEDY}")
            return None

        # Hashing releases the interpreter's lock, so one file is read while another is hashed.
        with ThreadPoolExecutor(CHECKING_THREADS) as pool:
            faults = list(filter(None, pool.map(fault, dict.fromkeys(case_ids))))
        if faults:
            raise UserError(f"{sentences(faults, most=SHOWN)} {REMEDY}")

    def case(self, case_id: str) -> PreprocessedCase:
        """One case, opened once and kept open.

        Raises:
            UserError: the case is missing, damaged, or was made with other plans than the current ones.
        """
        if case_id not in self._cases:
            case = PreprocessedCase.open(self.folder, case_id)
            made_with = content_hash(case.properties.input_sha256, self.plans, case.properties.labels_present)
            if made_with != case.properties.content_hash:
                raise UserError(f"{case.folder}: made with other plans than {self.folder} has now. {REMEDY}")
            self._cases[case_id] = case
        return self._cases[case_id]


class PreprocessedCase:
    """One case, read in parts. Files are opened at the first read and stay open; threads may share it.

    The SHA-256 of a file is verified before its first read.
    """

    def __init__(self, folder: Path, properties: CaseProperties) -> None:
        self.folder = folder
        self.properties = properties
        self._arrays: dict[str, Any] = {}
        self._intact: set[str] = set()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path, case_id: str) -> PreprocessedCase:
        """The case of a preprocessed data set folder.

        Raises:
            UserError: it is missing or has another version, or a file is missing or has another length.
        """
        case_dir = case_folder(folder, case_id)
        properties = CaseProperties.read(case_dir / PROPERTIES)
        for name, expected in properties.files.items():
            length = _length(case_dir / name)
            if length != expected.bytes:
                actual = "missing" if length is None else f"{length} bytes"
                raise UserError(f"{case_dir / name}: {actual}; {expected.bytes} bytes were written. {REMEDY}")
        return cls(case_dir, properties)

    @property
    def shape(self) -> Shape:
        """Voxels of the stored arrays."""
        return self.properties.shape

    def image(self, region: Box | None = None) -> NDArray[np.float32]:
        """The image, or its part in `region` (slices within the shape, step 1).

        Returns:
            (C, Z, Y, X) float32.
        """
        import torch  # converts float16 five times as fast as numpy; writing a store does not need it

        return torch.from_numpy(self._read(IMAGE, (slice(None), *(region or ())))).float().numpy()

    def label(self, region: Box | None = None) -> NDArray:
        """The label codes, whole or in `region`; uint8 or uint16, see `LabelSet`.

        Raises:
            ValueError: the case is not annotated.
        """
        return self._read(LABEL, region or ())

    def image_window(self, start: Shape, size: Shape) -> NDArray[np.float32]:
        """The (C, *size) image of a window that may extend beyond the volume, where it is 0.

        Args:
            start: first voxel (z, y, x) of the window; may be negative.
        """
        import torch  # see `image`

        return torch.from_numpy(self._read_window(IMAGE, start, size, pad_value=0)).float().numpy()

    def label_window(self, start: Shape, size: Shape, *, outside: int) -> NDArray:
        """The (*size) label codes of a window that may extend beyond the volume, where they are `outside`.

        Args:
            start: first voxel (z, y, x) of the window; may be negative.

        Raises:
            ValueError: the case is not annotated.
        """
        return self._read_window(LABEL, start, size, pad_value=outside)

    def locations(self, code: int) -> NDArray[np.int64]:
        """Voxels with `code`: ascending flat C-order indices into (Z, Y, X), all or at most 100,000 random ones.

        Empty if the case lacks the code. Background is stored only if some voxels are not annotated (ignore).
        """
        if not self.properties.annotated:
            return np.empty(0, np.int64)
        path = self.folder / LOCATIONS
        with self._lock:
            self._check(LOCATIONS)

        def read() -> NDArray[np.int64]:
            with safe_open(path, framework="numpy") as tensors:
                check_version(path, (tensors.metadata() or {}).get("version"))
                if str(code) not in tensors.keys():  # noqa: SIM118 (not a mapping)
                    return np.empty(0, np.int64)
                return tensors.get_tensor(str(code)).astype(np.int64)

        return read()

    def is_intact(self) -> bool:
        """Whether every file has the written content; reads all files completely."""
        return all(self._has_its_content(name) for name in self.properties.files)

    def check(self) -> None:
        """Verify the hash of every file, once.

        Raises:
            UserError: a file is missing or damaged.
        """
        with self._lock:
            for name in self.properties.files:
                self._check(name)

    def _check(self, name: str) -> None:
        """Raise a UserError if a file is not the one that was written; each file is read completely once."""
        if name in self._intact:
            return
        path = self.folder / name
        try:
            intact = self._has_its_content(name)
        except FileNotFoundError:
            raise UserError(f"{path}: missing. {REMEDY}") from None
        if not intact:
            raise UserError(f"{path}: damaged: its SHA-256 differs from that of the written file. {REMEDY}")
        self._intact.add(name)

    def _has_its_content(self, name: str) -> bool:
        return files.sha256_of(self.folder / name) == self.properties.files[name].sha256

    def _read(self, name: str, index: tuple[slice, ...]) -> NDArray:
        return self._decode(name, lambda array: array[index])

    def _read_window(self, name: str, start: Shape, size: Shape, *, pad_value: int) -> NDArray:
        # Imported here because it imports torch, which writing a store does without.
        from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

        bounds = [[first, first + edge] for first, edge in zip(start, size, strict=True)]
        window = self._decode(name, lambda array: crop_and_pad_nd(array, bounds, pad_value))
        if any(stop <= 0 or first >= edge for (first, stop), edge in zip(bounds, self.shape, strict=True)):
            window[...] = pad_value  # acvl-utils fills a window that lies wholly outside with 0
        return window

    def _decode(self, name: str, read: Callable[[Any], NDArray]) -> NDArray:
        """What `read` returns of the opened array."""
        if name == LABEL and not self.properties.annotated:
            raise ValueError(f"case {self.properties.case_id} has no label")
        path = self.folder / name
        # blosc2 decodes through a context of the array that only one thread may use at a time.
        with self._lock:
            if name not in self._arrays:
                self._check(name)
                self._arrays[name] = _open_array(path)
            try:
                return read(self._arrays[name])
            except RuntimeError:  # raised by blosc2; other errors do not come from the file
                if self._has_its_content(name):
                    raise
                raise UserError(f"{path}: damaged while it was in use. {REMEDY}") from None

    def __getstate__(self) -> tuple[Path, CaseProperties]:
        # Open files and locks are not passed to another process.
        return self.folder, self.properties

    def __setstate__(self, state: tuple[Path, CaseProperties]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def case_folder(folder: Path, case_id: str) -> Path:
    """The folder of a case in a preprocessed data set.

    Raises:
        UserError: the id is not a plain file name.
    """
    if not case_id or case_id in (".", "..") or any(character in case_id for character in "/\\:\0"):
        raise UserError(f"case {case_id!r}: is not a valid folder name. Rename it without slashes and colons.")
    return Path(folder) / CASES / case_id


def write_case(
    folder: Path,
    properties: CaseProperties,
    *,
    image: NDArray,
    label: NDArray | None,
    labels: LabelSet,
    codec: Codec = "lz4",
) -> None:
    """Write a case of the preprocessed data set `folder`; an existing one is deleted first.

    Args:
        properties: everything but `files`, which is filled in here.
        image: (C, Z, Y, X) float32.
        label: (Z, Y, X) codes, or None for a case without annotation.
        labels: the meaning of the codes.
        codec: `lz4` writes and reads fastest, `zstd` is about 15 % smaller.
    """
    case_dir = case_folder(folder, properties.case_id)
    case_dir.mkdir(parents=True, exist_ok=True)
    for stale in (PROPERTIES, IMAGE, LABEL, LOCATIONS):  # properties first: without them the case does not exist
        (case_dir / stale).unlink(missing_ok=True)
    files.clear_unfinished(case_dir)
    # No fsync: after a power cut, lengths or hashes differ from the properties, so the case is made again.
    written = [IMAGE]
    stored = to_half(image) if is_half_enough(image) else image.astype(np.float32, copy=False)
    _write_array(case_dir / IMAGE, stored, codec)
    if label is not None:
        written += [LABEL, LOCATIONS]
        _write_array(case_dir / LABEL, label.astype(labels.code_dtype, copy=False), codec)
        with files.atomic_path(case_dir / LOCATIONS, durable=False) as temporary:
            save_file(
                _locations(label, labels, properties.case_id), temporary, metadata={"version": str(STORE_VERSION)}
            )
    kept = {n: StoredFile(bytes=(case_dir / n).stat().st_size, sha256=files.sha256_of(case_dir / n)) for n in written}
    complete = properties.model_copy(update={"files": kept})
    complete = complete.model_copy(update={"sha256": complete.computed_sha256})
    files.write_json(case_dir / PROPERTIES, complete.model_dump(mode="json"), durable=False)


def _locations(label: NDArray, labels: LabelSet, case_id: str) -> dict[str, NDArray]:
    """By code, ascending flat indices; at most MAX_LOCATIONS of each, drawn at random with a key from the case id."""
    flat = label.reshape(-1)
    # Half the size of int64; a volume of more than 4.29e9 voxels does not fit in memory anyway.
    dtype = np.uint32 if flat.size <= np.iinfo(np.uint32).max else np.uint64
    # One pass over the volume; the codes are then separated within the foreground only.
    foreground = np.flatnonzero((flat > 0) & (flat < labels.ignore_code))
    codes = flat[foreground]
    found = {int(code): foreground[codes == code] for code in np.unique(codes)}
    if (flat == labels.ignore_code).any():
        found[0] = np.flatnonzero(flat == 0)
    out = {}
    for code, where in found.items():
        if len(where) > MAX_LOCATIONS:
            draw = generator(0, f"locations of {case_id}", sample=code)
            where = np.sort(draw.choice(where, MAX_LOCATIONS, replace=False, shuffle=False))
        out[str(code)] = where.astype(dtype)
    return out


def _write_array(path: Path, array: NDArray, codec: Codec) -> None:
    import blosc2  # importing it takes as long as writing 20 small cases, and reading properties does not need it

    lead = (1,) * (array.ndim - 3)
    # Shuffling single bytes has no effect, but takes most of a label's decoding time.
    filters = [blosc2.Filter.NOFILTER if array.itemsize == 1 else blosc2.Filter.SHUFFLE]
    parameters = blosc2.CParams(codec=getattr(blosc2.Codec, codec.upper()), clevel=1, filters=filters, nthreads=1)
    small = array.nbytes < AT_ONCE_BYTES
    with files.atomic_path(path, durable=False) as temporary:
        stored = blosc2.asarray(
            np.ascontiguousarray(array),
            chunks=(*lead, *(min(CHUNK, n) for n in array.shape[-3:])),
            blocks=(*lead, *(min(BLOCK, n) for n in array.shape[-3:])),
            cparams=parameters,
            urlpath=None if small else str(temporary),
            contiguous=True,
            mode="w",
        )
        stored.schunk.vlmeta["swinssl"] = {"version": STORE_VERSION}
        if small:
            temporary.write_bytes(stored.to_cframe())
        del stored


def _open_array(path: Path) -> Any:
    import blosc2

    refuse_special_metadata(path)
    # One decoding thread, because training has several reader threads.
    parameters = blosc2.DParams(nthreads=1)
    try:
        array = blosc2.open(str(path), mode="r", dparams=parameters)
        version = array.schunk.vlmeta["swinssl"]["version"]
    except (RuntimeError, KeyError) as error:
        raise UserError(f"{path}: blosc2 cannot open it ({error}). {REMEDY}") from None
    check_version(path, version)
    return array


def refuse_special_metadata(path: Path) -> None:
    """Raise a UserError unless a blosc2 file is a plain array, before blosc2 opens it.

    Its metadata may name expressions, proxies and objects, and some versions of blosc2 run code of theirs on opening.
    In a contiguous frame their names begin at byte 94 (blosc2's README_CFRAME_FORMAT): a msgpack map of short strings,
    each with a 32-bit offset.

    Raises:
        UserError: it is none.
    """
    with open(path, "rb") as stream:
        head = stream.read(FRAME_HEAD_BYTES)
    names = []
    place = FRAME_METADATA + 2
    for _ in range(int.from_bytes(head[FRAME_METADATA : FRAME_METADATA + 2], "big")):
        length = head[place] & 0x1F if place < len(head) else 0
        names.append(head[place + 1 : place + 1 + length])
        place += 1 + length + 5
    if not head.startswith(FRAME_MAGIC) or names != [PLAIN_ARRAY]:
        listed = ", ".join(name.decode("ascii", "replace") for name in names) or "none"
        raise UserError(f"{path}: no plain array of the store (metadata: {listed}); it was not opened. {REMEDY}")


def _length(path: Path) -> int | None:
    """Length of a file in bytes; None if it is missing. A file that may not be accessed is not missing."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


# Largest magnitude of an image for float16: steps are at most 0.5 up to 1e3, and below 1e-3 for intensities in [0, 1].
# Smallest one: at 2^-3, half a step is 2^-14, below which everything becomes 0.
LEAST, MOST = 2.0**-3, 1e3
# Values converted at a time: these and the intermediate results fit in a core's cache.
AT_ONCE = 32_768
SIGN, REST = np.uint32(0x8000), np.uint32(0x7FFFFFFF)
MANTISSA = np.uint32(13)  # additional bits of float32's mantissa
# From float32's exponent to float16's, modulo 2^32, and a little less than half of the last place that stays.
REBIASED = np.uint32(((15 - 127) << 23) % 2**32 + 0xFFF)
# 2^-14 as float32's bits.
NORMAL = np.uint32((127 - 14) << 23)


def is_half_enough(image: NDArray[np.float32]) -> bool:
    """Whether float16 represents an image to 2^-11 of its largest value and of each value above 2^-14."""
    largest = max(float(image.max()), -float(image.min())) if image.size else 0.0
    return largest == 0 or LEAST <= largest <= MOST


def to_half(image: NDArray[np.float32]) -> NDArray[np.float16]:
    """Convert to float16: rounded to nearest, ties to even, as usual; values below 2^-14 become 0.

    In integers: the exponent is shifted, and the mantissa rounded by adding just under half a place, and its last bit,
    before what is too much is cut off.

    Args:
        image: finite, magnitudes up to `MOST`.
    """
    source = np.ascontiguousarray(image, np.float32).reshape(-1).view(np.uint32)
    out = np.empty(image.shape, np.float16)
    target = out.reshape(-1).view(np.uint16)
    space = [np.empty(min(AT_ONCE, source.size), np.uint32) for _ in range(2)]
    below = np.empty(len(space[0]), np.bool_)
    for start in range(0, source.size, AT_ONCE):
        bits = source[start : start + AT_ONCE]
        half, size, small = (buffer[: len(bits)] for buffer in (*space, below))
        np.bitwise_and(bits, REST, out=size)
        np.less(size, NORMAL, out=small)
        np.right_shift(size, MANTISSA, out=half)
        np.bitwise_and(half, np.uint32(1), out=half)
        np.add(half, size, out=half)
        np.add(half, REBIASED, out=half)
        np.right_shift(half, MANTISSA, out=half)
        np.right_shift(bits, np.uint32(16), out=size)
        np.bitwise_and(size, SIGN, out=size)
        np.bitwise_or(half, size, out=half)
        np.copyto(half, np.uint32(0), where=small)
        target[start : start + AT_ONCE] = half
    return out
