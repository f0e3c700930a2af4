"""A finding about a raw data set, and the list of everything that can be found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]

SEVERITIES: dict[str, Severity] = {"E": "error", "W": "warning", "N": "note"}

# E: a result would be wrong, or there would be none. W: it probably is. N: good to know, or nnU-Net would refuse it.
# The hundreds: 1 description and layout, 2 file, 3 image, 4 label, 5 data set as a whole.
CODES = {
    "E101": "dataset.json is missing or not readable",
    "E102": "a required key of dataset.json is missing",
    "E103": "a key of dataset.json has an invalid value",
    "E104": "invalid label values",
    "E105": "regions without a valid regions_class_order",
    "E106": "an image file is missing",
    "E107": "a label file is missing",
    "E108": "the channels of a case differ from those declared in dataset.json",
    "E109": "a case id that cannot be a file name on every system",
    "E110": "no cases",
    "E111": "labels_present or groups name something that does not exist",
    "E112": "two files claim to be the same image or label",
    "E113": "splits_final.json does not fit the cases",
    "E114": "a list of volumes that is unreadable, or has a line that does not name an image",
    "E115": "several channels in one file",
    "W101": "numTraining is not the number of cases",
    "W102": "a file or folder that is ignored",
    "W103": "a label without an image",
    "W104": "images in several formats, or in another than file_ending",
    "W105": "a key of dataset.json that looks misspelled",
    "W106": "a case id with characters that some tools do not accept",
    "W107": "structures are declared, but there are no labels",
    "W108": "cases without an entry in labels_present, groups or the group pattern",
    "N101": "an older or incomplete form of dataset.json",
    "N102": "images without the channel number",
    "N103": "label values with gaps",
    "N104": "background is not declared",
    "N105": "the ignore label is not the highest value",
    "N106": "file endings in upper case",
    "N107": "images of an undeclared modality",
    "E201": "a file that cannot be opened",
    "E202": "an empty file",
    "E203": "a file that is not an image, or has an invalid header",
    "E204": "a truncated file",
    "E205": "a corrupt file",
    "E206": "not one 3D volume",
    "E207": "voxels that are not plain numbers",
    "E208": "an impossible position in space",
    "E209": "a file with data after its voxels",
    "E210": "a header that claims more voxels than allowed or than fit into memory",
    "W201": "a header without the position of the image",
    "W202": "a header whose two affines differ",
    "N203": "lengths in metres or microns",
    "N204": "a header field that may name the patient",
    "N205": "a sheared grid",
    "W211": "a header with two voxel sizes",
    "E301": "voxels that cannot be computed with",
    "E302": "channels on different grids",
    "W302": "channels on slightly different grids",
    "W303": "a constant image",
    "W304": "the same image twice",
    "W305": "a CT that is not in Hounsfield units",
    "W306": "images that look like CT but are named otherwise",
    "W307": "a spacing or extent that is implausible in mm",
    "E401": "a label whose shape differs from its image",
    "E402": "a label on another grid than its image",
    "W402": "a label on a slightly different grid",
    "E403": "undeclared label values",
    "E404": "fractional label values",
    "E405": "a label with NaN or infinite values",
    "W406": "an empty label",
    "W407": "a structure listed as annotated, without voxels",
    "W408": "voxels of a structure not listed as annotated",
    "W409": "a structure that no case has",
    "E410": "no case has any structure",
    "W411": "the same label twice",
    "W412": "a structure of very few voxels",
    "W414": "left and right swapped",
    "W415": "a structure whose volume differs greatly from all other cases",
    "N501": "one case, or one group",
    "N502": "fewer cases than folds",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Args:
        code: a key of `CODES`; its first letter is the severity.
        file: relative to the data set's folder where it lies in it.
        message: what was found and what was expected; no full stop at its end.
        remedy: what the user does about it; a sentence.
    """

    code: str
    file: str
    message: str
    remedy: str

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"unknown code {self.code}")

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return SEVERITIES[self.code[0]]

    def __str__(self) -> str:
        return f"{self.file}: {self.message}. {self.remedy}"

    def as_json(self) -> dict[str, str]:
        """The five fields, as `--json` prints them."""
        return {
            "severity": self.severity,
            "code": self.code,
            "file": self.file,
            "message": self.message,
            "remedy": self.remedy,
        }
