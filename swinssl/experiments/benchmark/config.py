"""What a benchmark compares, as a TOML file says it: how encoders are made, and on which tasks they are judged."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.json_model import first_fault
from swinssl.core.workspace import safe_name
from swinssl.evaluation.comparison.expected_order import ExpectedOrder
from swinssl.networks.architectures import ARCHITECTURES
from swinssl.ssl.methods.registry import METHODS

# nnU-Net itself, in an environment of its own.
Peer = Literal["nnunet", "nnunet_resencm", "nnunet_small"]
PEERS = get_args(Peer)
BASELINES = tuple(name for name, row in ARCHITECTURES.items() if not row.swin_encoder)
SCRATCH = "scratch"
STARTS = (SCRATCH, "zeroed", *BASELINES, *PEERS)
if TYPE_CHECKING:
    Start = str
else:
    Start = Literal[STARTS]
ALL = "all"
REMEDY = "Correct it; docs/benchmark-your-data.md says what may stand there."

# Options of a command, as they would be typed.
Options = Annotated[tuple[str, ...], BeforeValidator(lambda text: shlex.split(text) if isinstance(text, str) else text)]


# By the command that options are of, what the benchmark sets itself: two values would be two benchmarks.
RESERVED = {
    "plan": ("--root", "--init", "--device", "--dry-run", "--json", "--help"),
    "pretrain": (
        "--root",
        "--out",
        "--device",
        "--cases",
        "--seed",
        "--probe",
        "--restart",
        "--dry-run",
        "--json",
        "--help",
    ),
    "train": (
        *("--root", "--name", "--fold", "--seed", "--shots", "--init", "--network", "--device", "--restart"),
        *("--slurm", "--dry-run", "--json", "--help"),
    ),
    "predict": (
        *("-i", "--input", "-o", "--output", "-m", "--model", "--device", "--part", "--dry-run", "--json", "--help"),
    ),
    "cka": ("--root", "--data", "--device", "--out", "--dry-run", "--json", "--help"),
}
# More would take longer to count than to give up.
MOST_CELLS = 5000

_Count = Annotated[int, Field(strict=True, ge=1)]
_Seed = Annotated[int, Field(strict=True, ge=0)]


def _refuse_reserved(command: str, options: Iterable[str], where: str) -> None:
    for word in options:
        flag = word.partition("=")[0] if word.startswith("--") else word[:2]
        if word.startswith("-") and flag in RESERVED[command]:
            raise ValueError(f"{where}: {flag} is set by the benchmark; leave it out")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pretraining(_Table):
    """How encoders are pretrained, as far as an init does not say otherwise.

    Args:
        datasets: raw data sets with the images.
        plan: options of swinssl_plan; the grid must fit all of them.
        options: of every swinssl_pretrain_<method>.
        probe: labelled data set for the frozen probe.
    """

    datasets: tuple[str, ...] = ()
    plan: Options = ()
    options: Options = ()
    probe: str | None = None


class Init(_Table):
    """What networks start from.

    Args:
        start: no encoder: scratch, one of zeros, a CNN, or nnU-Net.
        encoder: a file, or the name of one that comes with swinssl.
        method: pretrain with this one.
        datasets, options: of that pretraining, instead of or beyond the common ones.
        cases: only so many volumes are pretrained on.
        per_seed: pretrain anew for each seed, so that its chance is in the result too.
        train: further options of swinssl_train.
    """

    start: Start | None = None
    encoder: str | None = None
    method: str | None = None
    datasets: tuple[str, ...] | None = None
    options: Options = ()
    cases: _Count | None = None
    per_seed: bool = False
    train: Options = ()

    @model_validator(mode="after")
    def _one_of_three(self) -> Init:
        given = [name for name in ("start", "encoder", "method") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs one of start, encoder and method, and has {' and '.join(given) or 'none'}")
        if self.method is not None and self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is none of {', '.join(METHODS)}")
        if self.method is None and (self.datasets or self.options or self.cases or self.per_seed):
            raise ValueError("datasets, options, cases and per_seed are of a pretraining, which it has none of")
        return self

    @property
    def is_peer(self) -> bool:
        return self.start in PEERS

    @property
    def has_encoder(self) -> bool:
        """Whether it starts from a pretrained one."""
        return self.start is None


class Task(_Table):
    """What is segmented, and on which cases.

    Args:
        dataset: raw data set.
        modality: for the report.
        test: so many cases, drawn once with patients whole, or their names; never trained or validated on.
        test_dataset: the test cases are another data set's, all of them unless `test` says which.
        validation: cases that choose the best checkpoint; 0 leaves the choice to the end of training.
        shots: training cases, nested and stratified, by seed; `all` takes what is left.
        plan, train, predict: options of swinssl_plan, swinssl_train and swinssl_predict.
        groups: structures by the name of a group that is reported together.
    """

    dataset: str
    modality: str = ""
    test: _Count | tuple[str, ...] | None = None
    test_dataset: str | None = None
    validation: Annotated[int, Field(strict=True, ge=0)] = 5
    shots: tuple[_Count | Literal["all"], ...] = Field((5,), min_length=1)
    plan: Options = ()
    train: Options = ()
    predict: Options = ()
    groups: dict[str, tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _has_test_cases(self) -> Task:
        if self.test is None and self.test_dataset is None:
            raise ValueError("needs test (how many cases, or which) or test_dataset")
        if len(set(self.shots)) < len(self.shots):
            raise ValueError(f"shots are {list(self.shots)}; give each number once")
        return self


class BenchmarkConfig(_Table):
    """A benchmark: every init on every task, with every number of shots and every seed.

    Args:
        name: of its folder and report.
        title: of the report.
        seeds: of training, and of which cases are the few.
        named: comparisons that are made before all others and are not corrected for them, `A:B`.
        expected: an order of inits that others found, best first: `smit > simmim > ibot = dino > scratch`.
        cka: options of swinssl_cka, which looks at what fine-tuning does to each encoder; False: it does not.
        plan_for: the init whose encoder all tasks are planned for. Default: the first that has one.
    """

    name: str
    title: str = ""
    seeds: tuple[_Seed, ...] = (0, 1, 2)
    named: tuple[str, ...] = ()
    expected: str | None = None
    cka: Options | Literal[False] = ()
    plan_for: str | None = None
    pretraining: Pretraining = Pretraining()
    inits: dict[str, Init] = Field(min_length=1)
    tasks: dict[str, Task] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> BenchmarkConfig:
        for pair in self.named:
            wrong = [name for name in pair.split(":") if name not in self.inits]
            if wrong or pair.count(":") != 1:
                raise ValueError(f"named: {pair!r} is not two inits with a colon between them")
        if self.expected is not None:
            try:
                models = ExpectedOrder.parse(self.expected).models
            except UserError as error:
                raise ValueError(f"expected: {error}") from None
            if strange := [name for name in models if name not in self.inits]:
                raise ValueError(f"expected: {strange[0]!r} is no init")
        if self.plan_for is not None and self.plan_for not in self.inits:
            raise ValueError(f"plan_for: {self.plan_for!r} is no init")
        self._leave_reserved_options_alone()
        shots = sum(len(task.shots) for task in self.tasks.values())
        if (cells := len(self.seeds) * shots * len(self.inits)) > MOST_CELLS:
            raise ValueError(
                f"{cells:,} trainings (seeds x shots x inits), {MOST_CELLS:,} at most; make several benchmarks of it"
            )
        for name, init in self.inits.items():
            if init.method is not None and not (init.datasets or self.pretraining.datasets):
                raise ValueError(f"inits.{name}: nothing to pretrain on; give datasets, here or under [pretraining]")
        return self

    def _leave_reserved_options_alone(self) -> None:
        _refuse_reserved("plan", self.pretraining.plan, "pretraining.plan")
        _refuse_reserved("pretrain", self.pretraining.options, "pretraining.options")
        _refuse_reserved("cka", self.cka or (), "cka")
        for name, init in self.inits.items():
            _refuse_reserved("pretrain", init.options, f"inits.{name}.options")
            _refuse_reserved("train", init.train, f"inits.{name}.train")
        for name, task in self.tasks.items():
            for command in ("plan", "train", "predict"):
                _refuse_reserved(command, getattr(task, command), f"tasks.{name}.{command}")

    @property
    def planned_for(self) -> str | None:
        """The init whose encoder the tasks are planned for; None plans without one."""
        first = next((name for name, init in self.inits.items() if init.has_encoder), None)
        return self.plan_for or first

    def datasets_of(self, init: Init) -> tuple[str, ...]:
        """What it is pretrained on."""
        return init.datasets or self.pretraining.datasets


def read_config(path: Path) -> BenchmarkConfig:
    """A benchmark's TOML file.

    Raises:
        UserError: missing, not TOML, or something in it does not fit.
    """
    path = Path(path)
    try:
        content = tomllib.loads(files.read_text(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the benchmark's TOML file.") from None
    except RecursionError:
        raise UserError(f"{path}: cannot be read as TOML (nested too deeply). {REMEDY}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Give the benchmark's TOML file.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: cannot be read as TOML ({error}). {REMEDY}") from None
    for name, init in content.get("inits", {}).items() if isinstance(content.get("inits"), dict) else ():
        if init == {} and name in STARTS:  # [inits.scratch] says it all
            init["start"] = name
    try:
        config = BenchmarkConfig.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        raise UserError(f"{path}: {first_fault(error)}. {REMEDY}") from None
    for what, names in (("init", config.inits), ("task", config.tasks), ("benchmark", (config.name,))):
        for name in names:
            safe_name(name, what=f"{path}: {what}")
    if len(set(config.seeds)) < len(config.seeds) or not config.seeds:
        raise UserError(f"{path}: seeds are {list(config.seeds)}. Give one or more, each once.")
    return config
