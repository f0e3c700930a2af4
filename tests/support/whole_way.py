"""What is typed from a raw data set to its report, on the toy data set 7 in a workspace."""

from __future__ import annotations

STEPS = {
    "check": lambda root: ("7", "--root", root),
    "plan": lambda root: ("7", "--root", root, "--device", "cpu", "--workers", 0, "--preset", "tiny"),
    "preprocess": lambda root: ("7", "--root", root, "--workers", 2),
    "train": lambda root: ("7", "--root", root, "--device", "cpu", "--steps", 1, "--decoder", "light", "--name", "toy"),
    "predict": lambda root: (
        *("-i", root / "raw" / "Dataset007_Toy" / "imagesTr", "-o", root / "Ausgabe für Ärzte", "--device", "cpu"),
        *("-m", root / "results" / "Dataset007_Toy" / "toy"),
    ),
    "evaluate": lambda root: (
        *("-p", root / "Ausgabe für Ärzte", "-r", root / "raw" / "Dataset007_Toy" / "labelsTr", "--workers", 0),
        *("--out", root / "Bericht"),
    ),
}
