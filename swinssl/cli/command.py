"""From a function to a console command: typed options, one error voice, the exit codes of decisions.md."""

from __future__ import annotations

import atexit
import errno
import functools
import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from typer.core import TyperCommand
from typer.exceptions import TyperException

from swinssl.core import files
from swinssl.core.errors import Interrupted, UserError
from swinssl.core.machine import limit_threads, set_omp_wait_policy
from swinssl.core.provenance import __version__
from swinssl.core.terminal import open_streams, print, print_message, progress_to, start_log
from swinssl.core.text import did_you_mean, listed

TYPER: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
EXIT_USER_ERROR = 2
INTERRUPTED = 130
RESUME = "Rerun the command to resume."
# Options of earlier versions; the error message suggests the new name.
RENAMED_OPTIONS = {f"--{no}clean-up": f"--{no}postprocessing" for no in ("", "no-")}
# Errors of the machine rather than of the program, and what to do about them.
FULL = "Free some space there, or choose another folder."
FORBIDDEN = "Change its permissions, or choose another folder."
IN_THE_WAY = "It is where a folder should be: move it away, or choose another folder."
USER_ERRNOS = {
    **dict.fromkeys(files.FULL_ERRNOS, FULL),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), FORBIDDEN),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), IN_THE_WAY),
}
# How typer refuses a value that is none of an option's choices.
_NOT_A_CHOICE = re.compile(r"""(?:Value error, )?(['"])(?P<value>.*)\1 is not (?:one of )?(?P<choices>'.*')\.?""", re.S)
_QUOTED = re.compile("'([^']*)'")
# Of a command that another one runs; else they are the process's own.
_TYPED: ContextVar[Sequence[str]] = ContextVar("_TYPED", default=())


def command(function: Callable[..., None]) -> Callable[[], None]:
    """The console entry point of `function`: its signature becomes the options, its docstring the help.

    A parameter annotated with a pydantic model becomes one option a field; the field's default, type and description
    stand in the model and nowhere else.
    """

    return _entry_point(_app(_with_exit_codes(_flattened(function))))


def commands(summary: str, **functions: Callable[..., None]) -> Callable[[], None]:
    """The console entry point of several functions, each a sub-command by its keyword; `import_` is typed `import`."""
    app = typer.Typer(**TYPER, help=summary, no_args_is_help=True)
    app.callback(help=summary)(_with_version(lambda: None))  # one sub-command alone is typed by its name too
    for name, function in functions.items():
        app.command(name.rstrip("_"), cls=_Command)(_with_exit_codes(_flattened(function)))
    return _entry_point(app)


def _entry_point(app: typer.Typer) -> Callable[[], None]:
    def main() -> None:
        open_streams()
        try:
            limit_threads()
        except UserError as error:
            print_message("error", error)
            raise SystemExit(EXIT_USER_ERROR) from None
        set_omp_wait_policy()
        start_log()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)
        try:
            with progress_to("terminal"):
                app(prog_name=Path(sys.argv[0]).stem)
        except UserError as error:  # an option's value, refused before the command's function runs
            print_message("error", error)
            raise SystemExit(EXIT_USER_ERROR) from None
        except SystemExit as end:
            if _is_of_a_group():
                _end_at_once(end)
            raise

    main.app = app  # type: ignore[attr-defined]
    return main


def _is_of_a_group() -> bool:
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _end_at_once(end: SystemExit) -> None:
    """All that Python does at its end but for taking itself down.

    Threads of gloo may still hold tensors then, which aborts a run that has ended well (pytorch issue 190489).
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


def _interrupt(*_: object) -> None:
    """A scheduler's request to end is a Ctrl-C: temporary files go, and the exit code says that it was interrupted."""
    raise KeyboardInterrupt


def arguments_as_typed() -> Sequence[str]:
    """The words after the command's name."""
    return _TYPED.get() or sys.argv[1:]


def run_typed(function: Callable[..., None], arguments: Sequence[str]) -> None:
    """Run a command's function as if it had been typed with `arguments`; its errors are the caller's.

    Raises:
        UserError: as the function does, and where `arguments` do not fit.
    """
    before = _TYPED.set(tuple(arguments))
    try:
        code = _app(_flattened(function))(list(arguments), standalone_mode=False)
    except TyperException as error:
        raise UserError(error.format_message()) from None
    finally:
        _TYPED.reset(before)
    if code == INTERRUPTED:  # typer makes this of a Ctrl-C, which the caller must not take for the end of the work
        raise KeyboardInterrupt


def _app(function: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(**TYPER)
    app.command(cls=_Command)(_with_version(function))
    return app


class _Command(TyperCommand):
    """A command that suggests the new name of a renamed option and the nearest choice of an option's value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            former = getattr(error, "option_name", None)
            if former in RENAMED_OPTIONS and hasattr(error, "possibilities"):
                error.possibilities = [RENAMED_OPTIONS[former]]
            refused = _NOT_A_CHOICE.fullmatch(error.message)
            parameter = getattr(error, "param", None)
            if refused is None or parameter is None:
                raise
            name = max(parameter.opts, key=len)
            choices = _QUOTED.findall(refused["choices"])
            raise UserError(f"{name} {refused['value']}: {_unknown(refused['value'], choices)}See --help.") from None


def _with_version(function: Callable[..., None]) -> Callable[..., None]:
    """`function` with the option `--version`."""
    signature = inspect.signature(function)
    option = typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)

    @functools.wraps(function)
    def versioned(*, version: bool = False, **values: Any) -> None:
        function(**values)

    parameter = inspect.Parameter(
        "version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option]
    )
    parameters = [*signature.parameters.values(), parameter]
    versioned.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    versioned.__annotations__ = {p.name: p.annotation for p in parameters}
    return versioned


def _print_version(asked: bool) -> None:
    if asked:
        print(f"swinssl {__version__}")
        raise typer.Exit


def _with_exit_codes(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except UserError as error:
            print_message("error", error)
            raise SystemExit(EXIT_USER_ERROR) from None
        except Interrupted as stop:
            print_message("\nstopped", stop)
            raise SystemExit(INTERRUPTED) from None
        except KeyboardInterrupt:
            print_message("\nstopped", RESUME)
            raise SystemExit(INTERRUPTED) from None
        except OSError as error:
            if error.errno not in USER_ERRNOS:
                raise
            print_message("error", f"{_culprit(error)}: {error.strerror}. {USER_ERRNOS[error.errno]}")
            raise SystemExit(EXIT_USER_ERROR) from None

    return wrapped


def _culprit(error: OSError) -> str:
    """The file that an error is about; of a path through a file, that file."""
    if error.filename is None:
        return "a file"
    path = Path(error.filename)
    return str(next((part for part in (path, *path.parents) if part.is_file()), path))


def _flattened(function: Callable[..., None]) -> Callable[..., None]:
    """`function` with each pydantic-model parameter replaced by one option a field."""
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    models: dict[str, type[BaseModel]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        model = hints[name]
        if isinstance(model, type) and issubclass(model, BaseModel):
            models[name] = model
            parameters += [_option(field, info) for field, info in model.model_fields.items()]
        else:
            parameters.append(parameter.replace(annotation=model, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(function)
    def flattened(**values: Any) -> None:
        for name, model in models.items():
            values[name] = _build(model, {field: values.pop(field) for field in model.model_fields})
        function(**values)

    flattened.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flattened.__annotations__ = {p.name: p.annotation for p in parameters}
    return flattened


def _option(name: str, info: FieldInfo) -> inspect.Parameter:
    declared = "--" + name.replace("_", "-")
    is_switch = bool in (info.annotation, *get_args(info.annotation))
    flags = [f"{declared}/--no-{declared[2:]}" if is_switch else declared]
    option = typer.Option(*flags, help=info.description)
    annotation = Annotated[_plain_type(info.annotation), option]  # type: ignore[valid-type]
    default = info.get_default(call_default_factory=True)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _plain_type(annotation: Any) -> Any:
    """The annotation without pydantic's constraints, which typer does not know."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _build(model: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + str(first["loc"][0] if first["loc"] else "").replace("_", "-")
        fault = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise UserError(f"{flag} {first['input']}: {fault}. See --help.") from None


def _unknown(value: str, choices: Sequence[str]) -> str:
    """That `value` is none of the choices, with the nearest; a space at the end."""
    return f"unknown. {did_you_mean(value, choices)}Choose one of {listed(choices, most=len(choices))}. "
