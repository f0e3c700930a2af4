"""Segment many cases: the next case is read while the network computes, and a failed case does not stop the others."""

from __future__ import annotations

import errno
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from swinssl.core.errors import UserError
from swinssl.core.machine import free_memory, is_out_of_memory
from swinssl.core.terminal import Meter
from swinssl.dataset.labels import LabelSet
from swinssl.imageio.reader import header_contradictions, read_image
from swinssl.imageio.volume import Geometry, Volume
from swinssl.imageio.voxel_stream import image_sha256
from swinssl.inference.input_cases import InputCase
from swinssl.inference.input_check import far_from_training, input_warnings
from swinssl.inference.output_folder import OutputFolder
from swinssl.inference.prediction_record import CaseRecord
from swinssl.inference.predictor import Predictor
from swinssl.inference.source_grid import SourceGrid
from swinssl.preprocessing.plans import Plans
from swinssl.preprocessing.prepared_volume import PreparedVolume, peak_bytes, prepare, shapes_by_header

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Fraction of the free memory for reading the next case; the sums over windows may take half.
AHEAD_SHARE = 0.25
# Disk errors that every further case would hit too.
FATAL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass(frozen=True)
class CaseOutcome:
    """The outcome of a case.

    Args:
        status: `done`, `finished` (already there) or `failed`.
        result: path of its label map.
        record: as stored in `predict_args.json`.
    """

    case: InputCase
    status: Literal["done", "finished", "failed"]
    result: Path
    record: CaseRecord


def predict_cases(
    cases: Sequence[InputCase],
    predictor: Predictor,
    folder: OutputFolder,
    *,
    trained_on: frozenset[str] = frozenset(),
) -> tuple[CaseOutcome, ...]:
    """Segment the cases that `folder` does not have yet; may be stopped and called again at any time.

    Args:
        predictor: with the post-processing in the record of `folder`.
        folder: begun; its record says whether probabilities are saved.
        trained_on: content hashes of the model's training images; a case among them gets a warning.
    """
    todo = [case for case in cases if not _safely(folder.has, case, otherwise=False)]
    outcomes = {
        case.id: CaseOutcome(case, "finished", folder.result_path(case), folder.record.cases[case.id])
        for case in cases
        if case not in todo
    }
    windows = {case.id: expected_windows(case, predictor) for case in todo}
    done = 0
    with Meter("predicting, windows", total=sum(windows.values())) as meter:

        def advance(more: int) -> None:
            nonlocal done
            done += more
            meter.update(done, note=case.id, total=sum(windows.values()))

        def load(case: InputCase) -> LoadedCase:
            return load_case(case.images, predictor.plans, trained_on=trained_on)

        for case, reading in _read_ahead(todo, load, partial(_fits_beside, plans=predictor.plans)):
            started, before = time.monotonic(), done
            try:
                loaded = reading.result()
                windows[case.id] = predictor.window_count(loaded.prepared.shape)
                segmentation = predictor.segment(
                    loaded.prepared.image,
                    SourceGrid.of(loaded.prepared),
                    probabilities=folder.record.options.save_probabilities,
                    on_windows=advance,
                )
                record = CaseRecord(
                    status="done",
                    images=tuple(path.name for path in case.images),
                    input_sha256=loaded.sha256,
                    warnings=loaded.warnings,
                    far=loaded.far,
                    volumes_ml=volumes_ml(segmentation.label_map, loaded.prepared.source, predictor.plans.labels),
                    seconds=time.monotonic() - started,
                )
                folder.store(case, segmentation, loaded.prepared.source, record)
            except Exception as error:  # an error or a bug in one case must not stop the others
                record = CaseRecord(status="failed", message=_reason(error, case))
                windows[case.id] = done - before
                logger.warning("%s failed: %s", case.id, record.message, exc_info=error if _is_bug(error) else None)
                folder.note(case, record)
            outcomes[case.id] = CaseOutcome(case, record.status, folder.result_path(case), record)
    return tuple(outcomes[case.id] for case in cases)


def unreadable(cases: Sequence[InputCase], plans: Plans) -> dict[str, str]:
    """By id, why a case cannot be segmented: each case is read as for prediction, without computing anything."""
    failed = {}
    for case in cases:
        try:
            load_case(case.images, plans, trained_on=frozenset())
        except Exception as error:
            failed[case.id] = _reason(error, case)
    return failed


def expected_windows(case: InputCase, predictor: Predictor) -> int:
    """Number of windows of a case, estimated from its header before any crop; 0 if the case cannot be prepared."""

    def count(case: InputCase) -> int:
        shapes = shapes_by_header(case.images, predictor.plans)
        return 0 if shapes is None else predictor.window_count(shapes[1])

    return _safely(count, case, otherwise=0)


def _safely(look: Callable[[InputCase], T], case: InputCase, *, otherwise: T) -> T:
    """The result of `look` before a case's turn; errors are reported at its turn and do not stop other cases."""
    try:
        return look(case)
    except Exception as error:
        logger.debug("%s: failed when inspected in advance", case.id, exc_info=error)
        return otherwise


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """A case ready for the network, its differences from the training data, and its images' content hashes."""

    prepared: PreparedVolume
    warnings: tuple[str, ...]
    far: tuple[str, ...]
    sha256: tuple[str, ...] = ()


def _read_ahead(
    cases: Sequence[InputCase], load: Callable[[InputCase], LoadedCase], fits: Callable[[InputCase], bool]
) -> Iterator[tuple[InputCase, Future[LoadedCase]]]:
    """Each case with its reading, which goes on in a thread, at most one case ahead, and only if that `fits`."""
    ahead: Future[LoadedCase] | None = None
    with ThreadPoolExecutor(1) as reader:
        for case, following in itertools.zip_longest(cases, cases[1:]):
            reading, ahead = ahead or reader.submit(load, case), None
            if following is not None and _safely(fits, following, otherwise=False):
                ahead = reader.submit(load, following)
            yield case, reading


def _fits_beside(case: InputCase, plans: Plans) -> bool:
    """Whether there is memory enough to read a case while another is segmented."""
    return peak_bytes(case.images, plans) < AHEAD_SHARE * free_memory()


def load_case(images: Sequence[Path], plans: Plans, *, trained_on: frozenset[str]) -> LoadedCase:
    """Read and prepare the files of a case, one per channel.

    Args:
        trained_on: content hashes of images that the model was trained on, to warn of.

    Raises:
        UserError: a file cannot be read or used.
    """
    sha256 = tuple(image_sha256(path) for path in images)
    volume = read_image(images)
    loaded = load_volume(volume, plans, name=str(images[0]), warnings=tuple(header_contradictions(images).values()))
    warnings = loaded.warnings
    if trained_on.intersection(sha256):
        warnings = (*warnings, "the model was trained on this image, so the result says nothing about new ones")
    return replace(loaded, warnings=warnings, sha256=sha256)


def load_volume(volume: Volume, plans: Plans, *, name: str, warnings: tuple[str, ...] = ()) -> LoadedCase:
    """Prepare a volume whose voxels are numbers that can be computed with, with as many channels as the plans.

    Args:
        name: what messages call it.
        warnings: what is known of it already.

    Raises:
        UserError: it cannot be prepared.
    """
    try:
        prepared = prepare(volume, plans)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    warnings = (*warnings, *input_warnings(volume, prepared, plans))
    return LoadedCase(prepared, warnings, far_from_training(volume, prepared, plans))


def volumes_ml(label_map: NDArray, geometry: Geometry, labels: LabelSet) -> dict[str, float]:
    """The volume of each structure in a (Z, Y, X) map of raw label values, in ml."""
    counts = np.bincount(label_map.reshape(-1), minlength=max(labels.raw_values, default=0) + 1)
    voxel_ml = geometry.voxel_volume / 1000
    return {
        name: float(counts[list(values)].sum() * voxel_ml)
        for name, values in zip(labels.names, labels.values, strict=True)
    }


def _reason(error: Exception, case: InputCase) -> str:
    """Why a case failed, as text; errors that would hit every other case too are raised again."""
    if isinstance(error, OSError) and error.errno in FATAL_ERRNOS:
        raise error
    if _is_bug(error):
        return f"{case.images[0]}: unexpected {type(error).__name__}: {error}. Report it with the lines above."
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or case.images[0]}: {error.strerror}"
    return f"{case.images[0]}: not enough memory. Close other programs, predict on the CPU (--device cpu), or crop it."


def _is_bug(error: Exception) -> bool:
    """Whether the cause is neither the user's data nor the machine, so that the traceback is useful."""
    return not (is_out_of_memory(error) or isinstance(error, UserError | OSError))
