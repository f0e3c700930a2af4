"""A task of the Medical Segmentation Decathlon: dataset.json with lists of images, channels in the fourth dimension."""

from __future__ import annotations

from pathlib import Path

from swinssl.core.errors import UserError
from swinssl.core.provenance import __version__
from swinssl.dataset.case import FIRST_CHANNEL, case_name
from swinssl.dataset.conversion.raw_writer import Conversion, SourceCase
from swinssl.dataset.description import DESCRIPTION_FILE, read_description
from swinssl.imageio.formats import required_ending

# Of the source's own dataset.json, what is wrong once it is converted.
OUTDATED = ("test", "numTest", "tensorImageSize")
FORM = "Give a task's folder, such as Task01_BrainTumour, with dataset.json, imagesTr and labelsTr."


def read_msd(folder: Path) -> Conversion:
    """What a task's folder holds; images are not opened.

    Raises:
        UserError: there is no task, or its description cannot be read.
    """
    folder = Path(folder)
    if not (folder / DESCRIPTION_FILE).is_file():
        raise UserError(f"{folder}: no {DESCRIPTION_FILE} here. {FORM}")
    description, findings = read_description(folder)
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise UserError(f"{folder / DESCRIPTION_FILE}: {errors[0].message}. {errors[0].remedy}")
    if not description.training:
        raise UserError(f'{folder / DESCRIPTION_FILE}: has no list "training" of images and labels. {FORM}')
    cases = []
    for image, entry in description.training.items():
        if entry.label is None:
            raise UserError(f'{folder / DESCRIPTION_FILE}: "training": {image} has no label. {FORM}')
        cases.append(SourceCase(_case_id(image), folder / image, folder / entry.label, "imagesTr"))
    test = description.content.get("test", [])
    listed = [entry.get("image") if isinstance(entry, dict) else entry for entry in test if test]
    cases += [SourceCase(_case_id(i), folder / i, None, "imagesTs") for i in listed if isinstance(i, str)]
    ending = required_ending(cases[0].image)
    v2 = description.as_v2(channel_names=description.channel_names, cases=len(description.training), file_ending=ending)
    kept = {key: value for key, value in v2.items() if key not in OUTDATED}
    return Conversion(
        source=folder,
        description={**kept, "converted_by": f"swinssl {__version__}"},
        channels=len(description.channel_names),
        cases=tuple(sorted(cases, key=lambda case: (case.images_folder, case.id))),
    )


def _case_id(image: str) -> str:
    """The name of an image in the list, which has no channel number although some files have."""
    return case_name(image).removesuffix(FIRST_CHANNEL)
