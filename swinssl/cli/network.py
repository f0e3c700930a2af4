"""swinssl_network: the layers, parameters and cost of a network, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from swinssl.cli.command import command
from swinssl.cli.json_report import print_json
from swinssl.cli.parameters import Json
from swinssl.core.terminal import print
from swinssl.core.text import dimensions
from swinssl.networks import architectures
from swinssl.networks.network_plan import PRESETS, ArchitectureName, NetworkPlan, encoder_preset

if TYPE_CHECKING:
    from swinssl.cli.tables import Table
    from swinssl.networks.layer_table import LayerRow

# What each size is for, as --list says it.
PURPOSES = {
    "tiny": "CPU",
    "small": "CPU or GPU",
    "smit96": "paper's SMIT",
    "smit128": "patches of 128",
    "smits": "paper's SMITS",
    "smitp": "SMITP (*)",
}
GUESS = "(*) the paper names no heads for SMITP; these are a documented guess, chosen to give its 586.1 M parameters"

Preset = Annotated[str, typer.Option("--preset", help=f"Size of the encoder: {', '.join(PRESETS)}; see --list.")]
Classes = Annotated[
    int,
    typer.Option(
        "--classes",
        min=1,
        help="Outputs of the network, background included: 5 organs are 6 classes. Regions have no background.",
    ),
]
Architecture = Annotated[ArchitectureName, typer.Option("--network", help=architectures.HELP)]
Decoder = Annotated[
    Literal["full", "light"],
    typer.Option("--decoder", help="full (the paper's) or light (at most 16 channels at full resolution)."),
]
Norm = Annotated[
    Literal["batch", "instance"], typer.Option("--norm", help="Normalisation of the decoder; batch is the paper's.")
]
DeepSupervision = Annotated[
    bool, typer.Option("--deep-supervision/--no-deep-supervision", help="Losses at 1/2 and 1/4 too.")
]
Channels = Annotated[int, typer.Option("--channels", min=1, help="Image channels.")]
Patch = Annotated[tuple[int, int, int], typer.Option("--patch", help="z y x voxels, multiples of 32.")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Patches of the step whose cost is estimated.")]
List = Annotated[bool, typer.Option("--list", help="List the sizes and stop.")]


def network(
    preset: Preset = "small",
    classes: Classes = 2,
    architecture: Architecture = architectures.DEFAULT,
    decoder: Decoder = "full",
    norm: Norm = "batch",
    deep_supervision: DeepSupervision = False,
    channels: Channels = 1,
    patch: Patch = (96, 96, 96),
    batch_size: Batch = 2,
    list_presets: List = False,
    json: Json = False,
) -> None:
    """Print a network's layers with their output shapes and parameters, and what a training step costs.

    Nothing is computed and no memory is taken, however large the network.
    """
    if list_presets:
        _list(classes=classes, channels=channels, json=json)
        return
    from swinssl.networks.layer_table import layer_table
    from swinssl.planning.patch import checked_patch

    plan = NetworkPlan(
        architecture=architecture,
        preset=preset,
        decoder=decoder,
        norm=norm,
        deep_supervision=deep_supervision,
        encoder=encoder_preset(preset),
    )
    rows = layer_table(plan, in_channels=channels, num_outputs=classes, patch_size=checked_patch(patch))
    step = _step_cost(plan, patch=patch, batch_size=batch_size, channels=channels, classes=classes)
    if json:
        shown = plan.model_dump(mode="json") | {"channels": channels, "classes": classes, "patch": patch}
        print_json(_summary(rows) | {"step": step, "plan": shown, "layers": [vars(row) for row in rows]})
    else:
        _report(plan, rows, step, f"{channels} x {dimensions(patch)}", classes=classes)


def _summary(rows: list[LayerRow]) -> dict[str, int]:
    encoder = sum(row.parameters for row in rows if ".encoder." in f".{row.name}")
    return {"parameters": sum(row.parameters for row in rows), "encoder_parameters": encoder}


def _step_cost(
    plan: NetworkPlan, *, patch: tuple[int, int, int], batch_size: int, channels: int, classes: int
) -> dict[str, Any]:
    """Estimates of the cost model, which says how far to trust them."""
    from swinssl.planning.cost_model import gpu_seconds_guess, network_work, step_memory_gb, step_seconds_cpu

    work = network_work(plan, patch_size=patch, in_channels=channels, num_outputs=classes)
    shape: dict[str, Any] = {
        "patch_size": patch,
        "batch_size": batch_size,
        "in_channels": channels,
        "num_outputs": classes,
    }
    return {
        "batch_size": batch_size,
        "forward_multiply_adds_a_patch": work.conv + work.products,
        "cpu": {
            precision: {
                "memory_gb": round(step_memory_gb(plan, **shape, bf16=precision == "bf16"), 2),
                "seconds_on_two_cores": round(step_seconds_cpu(plan, **shape, bf16=precision == "bf16"), 2),
            }
            for precision in ("bf16", "fp32")
        },
        "gpu": {"seconds_guess": round(gpu_seconds_guess(plan, **shape), 3)},
    }


def _report(plan: NetworkPlan, rows: list[LayerRow], step: dict[str, Any], image: str, *, classes: int) -> None:
    from swinssl.cli.tables import print_table

    sums = _summary(rows)
    name = plan.preset if plan.has_swin_encoder else f"{plan.architecture} ({plan.preset})"
    decoder = f"{plan.decoder} decoder, " if plan.has_swin_encoder else ""
    print(f"{name}: {decoder}{plan.norm} norm, image {image}, {classes} classes (background included)")
    print_table(_layer_table(rows))
    print(f"{sums['parameters']:,} parameters, of these {sums['encoder_parameters']:,} in the encoder")
    bf16, fp32 = step["cpu"]["bf16"], step["cpu"]["fp32"]
    print(
        f"a training step of {step['batch_size']} patches, estimated: {bf16['memory_gb']:.3g} GB in bfloat16, "
        f"{fp32['memory_gb']:.3g} GB in float32; on two CPU cores {_seconds(bf16['seconds_on_two_cores'])} or "
        f"{_seconds(fp32['seconds_on_two_cores'])}, on a data-centre GPU about {_seconds(step['gpu']['seconds_guess'])}"
    )


def _layer_table(rows: list[LayerRow]) -> Table:
    from swinssl.cli.tables import Table

    table = Table("part", "what", "output (C, z, y, x)", "parameters", show_edge=False)
    table.columns[2].justify = table.columns[3].justify = "right"
    for row in rows:
        shape = dimensions(row.output) if row.output else "-"
        table.add_row(row.name, row.kind, shape, f"{row.parameters:,}")
    return table


def _list(*, classes: int, channels: int, json: bool) -> None:
    """Print the presets, with the parameters of whole segmentors."""
    from swinssl.planning.cost_model import network_work

    def parameters(preset: str, decoder: Literal["full", "light"]) -> int:
        plan = NetworkPlan(preset=preset, decoder=decoder, encoder=encoder_preset(preset))
        return network_work(plan, patch_size=(32, 32, 32), in_channels=channels, num_outputs=classes).parameters

    rows: list[dict[str, Any]] = [
        {
            "preset": name,
            "width": encoder.embed_dim,
            "depths": encoder.depths,
            "heads": encoder.heads,
            "parameters": parameters(name, "full"),
            "parameters_light": parameters(name, "light"),
            "purpose": PURPOSES[name],
        }
        for name, encoder in PRESETS.items()
    ]
    if json:
        print_json(rows)
        return
    from swinssl.cli.tables import Table, print_table

    table = Table("preset", "width", "depths", "heads", "million", "light", "for", show_edge=False)
    for row in rows:
        depths, heads = (",".join(map(str, row[key])) for key in ("depths", "heads"))
        counts = (f"{row[key] / 1e6:.2f}" for key in ("parameters", "parameters_light"))
        table.add_row(row["preset"], str(row["width"]), depths, heads, *counts, row["purpose"])
    print_table(table)
    print(f"million parameters with {classes} classes (background included), with the full and with the light decoder")
    print(GUESS)


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


main = command(network)
