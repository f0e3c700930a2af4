"""How a run of fine-tuning starts: from scratch, from the encoder that the plan was made for, or from another."""

from __future__ import annotations

import shlex
from pathlib import Path

from swinssl.core.workspace import command_words
from swinssl.networks.architectures import ARCHITECTURES
from swinssl.networks.checkpoints.shipped_encoders import SCRATCH, encoder_path, typed_as
from swinssl.planning.encoder_facts import encoder_name, learnt_otherwise, planned_encoder_path, read_encoder_facts
from swinssl.preprocessing.plans import Plans
from swinssl.training.config import TrainingConfig
from swinssl.training.effective_plans import effective_plans


def with_start(config: TrainingConfig, plans: Plans, folder: Path) -> TrainingConfig:
    """The choices of a run with `init` decided: where the user does not say, the encoder that the plan was made for.

    A CNN baseline has no Swin encoder, so it starts from scratch.

    Args:
        plans: of the data set.
        folder: `<root>/preprocessed/<name>`, where they lie.

    Raises:
        UserError: the planned encoder is not there any more, or has changed.
    """
    if config.init is not None:
        return config
    architecture = config.network or plans.network.architecture
    uses_encoder = plans.encoder is not None and ARCHITECTURES[architecture].swin_encoder
    start = typed_as(planned_encoder_path(plans, folder)) if uses_encoder else SCRATCH
    return config.model_copy(update={"init": start})


def default_name(plans: Plans, config: TrainingConfig) -> str:
    """The model's name where the user gives none: network, start, and what else tells runs of one data set apart.

    Args:
        config: with its start decided (`with_start`).
    """
    parts = [plans.network.short_name, SCRATCH if config.init in (None, SCRATCH) else encoder_name(Path(config.init))]
    parts += ["lora"] if config.peft == "lora" else []
    parts += [f"{config.shots}shots"] if config.shots else []
    parts += [f"seed{config.seed}"] if config.seed else []
    return "__".join(parts)


def free_name(preprocessed: Path, results: Path) -> str | None:
    """The `--name` that the first training with the plan needs because a model with other plans has the default name.

    None where none is needed: the default name is free, or its training can be resumed.

    Raises:
        UserError: the planned encoder is not there any more, or the preprocessed data set cannot be read.
    """
    plans = Plans.read(preprocessed)
    config = with_start(TrainingConfig(), plans, preprocessed)
    default = name = default_name(effective_plans(plans, config), config)
    number = 1
    while (results / name).exists():
        from swinssl.training.fine_tuning import can_start  # which takes torch

        if can_start(preprocessed, results, fold="0", config=config, name=name):
            break
        number += 1
        name = f"{default}_{number}"
    return None if name == default else name


def start_in_words(config: TrainingConfig, plans: Plans, folder: Path) -> list[str]:
    """What a run starts from, and how that differs from the plan; `config` as `with_start` gives it.

    Raises:
        UserError: there is no such encoder, or its file cannot be read.
    """
    planned = plans.encoder
    if config.init in (None, SCRATCH):
        return [
            f"starting from scratch{'' if planned is None else f'; the plan was made for the encoder {planned.name}'}"
        ]
    facts = read_encoder_facts(encoder_path(config.init or SCRATCH))
    name, differences = facts.reference.name, learnt_otherwise(facts, plans)
    if planned is not None and facts.reference.sha256 == planned.sha256:
        lines = [f"starting from the encoder {name}, which the plan was made for (--init scratch trains without it)"]
        return lines + [f"note: {name} learnt {words}" for words in differences]
    lines = [f"starting from the encoder {name}"]
    made_for = "without an encoder" if planned is None else f"for the encoder {planned.name}"
    if planned is not None and planned.name == name:
        made_for = f"for another {name} (SHA-256 {planned.sha256[:12]}, this one {facts.reference.sha256[:12]})"
    learnt = f"; {name} learnt {'; '.join(differences)}" if differences else ""
    lines.append(f"note: the plan was made {made_for}{learnt}. To plan for it: {plan_for(config, folder)}")
    return lines


def plan_for(config: TrainingConfig, folder: Path) -> str:
    """The commands that plan the data set anew for the encoder of a run."""
    init = shlex.join(["--init", str(config.init)])
    return f"{command_words('swinssl_plan', folder)} {init}, then {command_words('swinssl_preprocess', folder)}"


def remedy(config: TrainingConfig, folder: Path) -> str:
    """What to do where an encoder does not fit the planned network."""
    return f"Plan for this encoder: {plan_for(config, folder)}; or train without it: --init scratch."
