"""How the code is laid out: folders, imports between them, and how many modules a task passes through.

    python benchmarks/structure.py [--tree CHECKOUT] [--data RAW/Dataset004_Hippocampus]

Folders: the packages directly below `swinssl`; modules that lie there loose count as one. Arrows: pairs of folders of
which one imports the other. Arrows that run back: against the floors of pyproject.toml's import contract. Siblings:
modules and packages directly in one folder, `cli` apart.

With `--data` five tasks run on the first eight cases, and the modules are counted in which a function ran, threads
included: a raw folder to plans; a patch to its loss (sampling, augmentation, network, loss); `swinssl_train --init` of
two steps; an image to its segmentation on disk; a crop to the loss of SMIT. `--tree` measures another checkout, such as
an earlier version, with its own commands in this environment. Takes a minute on an idle core.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
FEWEST_LINES = 60
# They import whatever they like, and everything may import the version.
ENTRANCES = {"swinssl", "swinssl.__main__"}

# Runs in the measured tree. Arguments: output file, file of the task to count within ("": everything), module:function,
# the command's arguments.
TRACER = """
import atexit, importlib, json, sys, threading
out, within, entry, *arguments = sys.argv[1:]
methods, files, inside = {"load", "views", "step"}, set(), threading.local()

def note(frame, event, argument):
    code = frame.f_code
    is_task = bool(within) and code.co_name in methods and code.co_filename.endswith(within)
    if is_task and event in ("call", "return"):
        inside.depth = getattr(inside, "depth", 0) + (1 if event == "call" else -1)
    if event == "call" and (not within or getattr(inside, "depth", 0)) and code.co_name != "<module>":
        files.add(code.co_filename)

def write():
    sys.setprofile(None)
    json.dump(sorted(files), open(out, "w"))

atexit.register(write)
threading.setprofile(note)
sys.setprofile(note)
module, _, function = entry.partition(":")
sys.argv = [function, *arguments]
sys.exit(getattr(importlib.import_module(module), function)())
"""


def main() -> None:
    """Print the figures of a tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=HERE, help="checkout to measure")
    parser.add_argument("--data", type=Path, help="raw data set; also run the five tasks on its first eight cases")
    arguments = parser.parse_args()
    tree = arguments.tree.resolve()
    for name, value in {**layout(tree), **(paths(tree, arguments.data) if arguments.data else {})}.items():
        print(f"{name:64} {value}")


def layout(tree: Path) -> dict[str, object]:
    """Folders, arrows between them, cycles, siblings and small files of `tree`."""
    sources = {_module(path, tree): path for path in sorted((tree / "swinssl").rglob("*.py"))}
    imports = {module: _imports(module, path, sources) for module, path in sources.items()}
    arrows: dict[str, set[str]] = defaultdict(set)
    importers: dict[str, set[str]] = defaultdict(set)
    for module, targets in imports.items():
        for target in targets:
            importers[target].add(module)
            if _folder(module) != _folder(target) and not {module, target} & ENTRANCES:
                arrows[_folder(module)].add(_folder(target))
    order = _floors(tree)
    back = [f"{a} -> {b}" for a, targets in arrows.items() for b in targets if order.get(a, 99) < order.get(b, 0)]
    siblings = {
        str(folder.relative_to(tree)): sum(
            (child.suffix == ".py" and child.stem != "__init__") or (child / "__init__.py").exists()
            for child in folder.iterdir()
        )
        for folder in (tree / "swinssl").rglob("*")
        if (folder / "__init__.py").exists() and folder.name != "cli"
    }
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in sources.items()}
    fullest = max(siblings, key=lambda folder: siblings[folder])
    small = [
        module
        for module, count in lines.items()
        if count < FEWEST_LINES and len(importers[module]) == 1 and sources[module].name != "__init__.py"
    ]
    return {
        "modules": sum(path.name != "__init__.py" for path in sources.values()),
        "lines": sum(lines.values()),
        "folders directly below swinssl": len({_folder(module) for module in sources} - {""}),
        "arrows between them": sum(len(targets) for targets in arrows.values()),
        "arrows that run back": f"{len(back)}  {', '.join(back)}" if order else "no floors are declared",
        "cycles of folders": _cycles(arrows) or 0,
        "most siblings in a folder, cli apart": f"{siblings[fullest]} ({fullest})",
        f"files under {FEWEST_LINES} lines that one module imports": f"{len(small)}  {', '.join(small)}",
    }


def paths(tree: Path, data: Path) -> dict[str, object]:
    """Modules in which a function ran, by task, in the commands of `tree`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _copy_cases(data, root / "raw" / data.name, count=8)
        scripts = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

        def count(command: str, *arguments: str, within: str = "") -> int:
            files = _trace(tree, scripts[command], [*arguments], within)
            return len({file for file in files if file.startswith(f"{tree}/swinssl/")})

        common = ["--root", str(root)]
        short = ["--device", "cpu", "--readers", "0", "--precision", "fp32"]
        planned = count("swinssl_plan", str(root / "raw" / data.name), *common, *PLAN, "--workers", "0")
        count("swinssl_preprocess", data.name, *common, "--workers", "0")
        train = [data.name, *common, *short, "--steps", "2"]
        loss = count("swinssl_train", *train, "--name", "scratch", "--init", "scratch", within="segmentation_task.py")
        init = count("swinssl_train", *train, "--name", "init", "--init", ENCODER)
        image = next((root / "raw" / data.name / "imagesTr").iterdir())
        (root / "images").mkdir()
        (root / "images" / image.name).write_bytes(image.read_bytes())
        model = str(root / "results" / data.name / "scratch")
        predict = count(
            "swinssl_predict", "-i", str(root / "images"), "-o", str(root / "out"), "-m", model, "--device", "cpu"
        )
        pretrain = [data.name, *common, *short, "--steps", "2", "--out", str(root / "smit")]
        method = count("swinssl_pretrain_smit", *pretrain, within="pretext_task.py")
    return {
        "modules, a raw folder to plans": planned,
        "modules, a patch to its loss": loss,
        "modules, swinssl_train --init": init,
        "modules, an image to its segmentation on disk": predict,
        "modules, a crop to the loss of SMIT": method,
    }


PLAN = ("--preset", "tiny", "--patch", "32", "32", "32", "--batch-size", "2")
ENCODER = "tiny_smit_headneck_ct"


def _trace(tree: Path, entry: str, arguments: list[str], within: str) -> list[str]:
    """Files in which a function ran.

    Raises:
        RuntimeError: the command failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "files.json"
        run = subprocess.run(
            [sys.executable, "-c", TRACER, str(out), within, entry, *arguments],
            env={**os.environ, "PYTHONPATH": str(tree)},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if run.returncode:
            raise RuntimeError(f"{entry} {' '.join(arguments)} ended with {run.returncode}\n{run.stdout}{run.stderr}")
        return json.loads(out.read_text(encoding="utf-8"))


def _copy_cases(source: Path, target: Path, *, count: int) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True)
    labels = sorted((source / "labelsTr").iterdir())[:count]
    for label in labels:
        name = label.name.removesuffix(".nii.gz")
        for image in (source / "imagesTr").glob(f"{name}_[0-9][0-9][0-9][0-9].nii.gz"):
            (target / "imagesTr" / image.name).write_bytes(image.read_bytes())
        (target / "labelsTr" / label.name).write_bytes(label.read_bytes())
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    (target / "dataset.json").write_text(json.dumps(description | {"numTraining": len(labels)}), encoding="utf-8")


def _module(path: Path, tree: Path) -> str:
    parts = path.relative_to(tree).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _folder(module: str) -> str:
    """The package directly below `swinssl`; "" of a loose module there."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


def _imports(module: str, path: Path, sources: dict[str, Path]) -> set[str]:
    targets: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            targets |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {target for target in targets if target in sources and target != module}


def _floors(tree: Path) -> dict[str, int]:
    settings = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings.get("tool", {}).get("importlinter", {}).get("contracts", [])
    layers = next((contract["layers"] for contract in contracts if contract["type"] == "layers"), [])
    return {
        name.strip().removeprefix("swinssl."): len(layers) - height
        for height, names in enumerate(layers)
        for name in names.split(":")
    }


def _cycles(arrows: dict[str, set[str]]) -> str:
    """Groups of folders each of which reaches the others."""
    reach = {folder: _reachable(folder, arrows) for folder in arrows}
    groups = {
        tuple(sorted(other for other in reach if other in reach[folder] and folder in reach[other])) for folder in reach
    }
    cycles = sorted(group for group in groups if len(group) > 1)
    return (
        f"{len(cycles)}  {'; '.join(' - '.join(name or '(loose)' for name in group) for group in cycles)}"
        if cycles
        else ""
    )


def _reachable(folder: str, arrows: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [folder]
    while waiting:
        for target in arrows.get(waiting.pop(), ()):
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    return reached


if __name__ == "__main__":
    main()
