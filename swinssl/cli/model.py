"""swinssl_model: a trained model as one file, and back."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swinssl.cli.command import commands
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Json, Root
from swinssl.core.errors import UserError
from swinssl.core.terminal import print
from swinssl.core.text import counted, dimensions
from swinssl.core.workspace import Workspace

if TYPE_CHECKING:
    from swinssl.inference.trained_model import TrainedModel

Model = Annotated[Path, typer.Argument(help="Folder of a trained model, or of one of its folds.", metavar="MODEL")]
Archive = Annotated[Path, typer.Argument(help="The .zip that swinssl_model export wrote.", metavar="ARCHIVE")]
Either = Annotated[Path, typer.Argument(help="A model's folder, or its .zip.", metavar="MODEL")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write. Default: NAME.zip, here.")]
Folds = Annotated[list[str] | None, typer.Option("--folds", help="Fold to take; may be repeated. Default: all.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the model's folder. Default: the archive's.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def export(model: Model, out: Out = None, folds: Folds = None, force: Force = False, json: Json = False) -> None:
    """Write plans, description and weights of a model into one file, with their hashes.

    Checkpoints, logs and what they say of the training cases stay behind.
    """
    from swinssl.inference.model_archive import export_model
    from swinssl.inference.trained_model import ARCHIVE_ENDING, TrainedModel

    opened = TrainedModel.open(model, folds)
    place = out or Path(f"{opened.folder.resolve().name}{ARCHIVE_ENDING}")
    if place.suffix.lower() != ARCHIVE_ENDING:
        raise UserError(f"{place}: give a name that ends in {ARCHIVE_ENDING}.")
    if place.exists() and not force:
        raise UserError(f"{place}: is there already. Choose another --out, or replace it with --force.")
    manifest = export_model(opened, place)
    if json:
        print_json({"file": place, "manifest": manifest})
        return
    print(f"{place}: {counted(len(opened.folds), 'fold')}, {place.stat().st_size / 1e6:.1f} MB")
    _print_notes(opened)
    print(f"next: copy it to the other machine and unpack it there: swinssl_model import {shlex.quote(place.name)}")


def import_(archive: Archive, name: Name = None, root: Root = None, force: Force = False, json: Json = False) -> None:
    """Unpack a model so that swinssl_predict finds it, after all of it was found to be right.

    Nothing in an archive is executed; members that are no part of a model are refused, and so is what grows too large.
    """
    from swinssl.inference.model_archive import import_model
    from swinssl.inference.trained_model import TrainedModel

    folder = import_model(archive, Workspace.locate(root).root / "results", name=name, force=force)
    if json:
        print_json({"model": folder})
        return
    print(f"model: {folder}")
    _print_notes(TrainedModel.open(folder))
    print(f"next: swinssl_predict -i IMAGES -o OUT -m {shlex.quote(str(folder))}")


def verify(model: Either, json: Json = False) -> None:
    """Read a model or its archive whole: lengths, hashes, that weights fit the plans, and that its output is finite."""
    from swinssl.inference.model_archive import read_whole, verify_archive

    if model.is_dir():
        opened = read_whole(model)
        hashes, notes = {f"fold_{fold}": sha256 for fold, sha256 in opened.sha256.items()}, opened.notes
    else:
        manifest, notes = verify_archive(model)
        hashes = {name: own.sha256 for name, own in manifest.files.items()}
    if json:
        print_json({"model": model, "sha256": hashes, "notes": notes})
        return
    for note in notes:
        print(f"note: {note}")
    for what, sha256 in hashes.items():
        print(f"{sha256}  {what}")
    print(f"{model}: whole")


def list_(root: Root = None, json: Json = False) -> None:
    """The trained models of the workspace."""
    from swinssl.inference.trained_model import TrainedModel, models_below

    results = Workspace.locate(root).root / "results"
    found = []
    for model in models_below(results):
        entry: dict[str, Any] = {"model": model}
        try:
            opened = TrainedModel.open(model)
        except UserError as error:
            entry["fault"] = str(error)
        else:
            network = opened.plans.network
            entry |= {
                "folds": opened.folds,
                "unfinished": opened.unfinished,
                "network": network.short_name,
                "spacing": opened.plans.spacing,
                "structures": opened.plans.labels.names,
            }
        found.append(entry)
    if json:
        print_json({"models": found})
        return
    for entry in found:
        if "fault" in entry:
            print(f"{entry['model']}: {entry['fault']}")
            continue
        unfinished = f" (unfinished: {', '.join(entry['unfinished'])})" if entry["unfinished"] else ""
        spacing = dimensions(entry["spacing"], "g")
        print(f"{entry['model']}: {entry['network']}, {spacing} mm, folds {', '.join(entry['folds'])}{unfinished}")
    if not found:
        print(f"{results}: no trained model. Train one with swinssl_train, or bring one with swinssl_model import.")


def _print_notes(model: TrainedModel) -> None:
    for note in model.notes:
        print(f"note: {note}")


main = commands(
    "A trained model as one file that can be given to others.",
    export=export,
    import_=import_,
    verify=verify,
    list_=list_,
)
