"""Make an environment and run swinssl in it, with nothing but Python: `python3 run.py demo`, `python3 run.py test`.

The environment is .venv beside this file. It is made on the first run, used again afterwards, and brought up to date
when pyproject.toml or constraints.txt have changed. Nothing is installed elsewhere.

An old Python must be able to read this file, to be told that it is too old: hence no newer syntax than of 3.6.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = "made-by-run.json"
LOG = "install.log"
# constraints.txt keeps torch at the tested version.
PIP_ARGUMENTS = ["install", "-c", "constraints.txt", "-e", ".[test,fast]"]
# One process per core; the tests of a file share its fixtures, hence one process.
IN_PARALLEL = ["-n", "auto", "--dist", "loadfile"]
QUICK = ["-m", "not slow and not peer and not browser"]
EXIT_USER_ERROR, INTERRUPTED = 2, 130

USAGE = """usage: python3 run.py COMMAND [ARGUMENTS...]

  demo      every step on phantom CTs, from raw images to a page of results (3 minutes on 2 cores; --open shows it)
  test      the quick tests, 5 minutes on 2 cores; --all runs all, 12 minutes; further arguments go to pytest
  install   make the environment only, and say how to use it
  {others}
            run swinssl_COMMAND with these arguments

The first run installs into .venv beside run.py and takes some minutes; later runs start at once."""


class Stop(Exception):
    """The user can fix it; the message says how."""


def main(arguments: "list[str]") -> int:
    """Do what was typed; the exit code."""
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(USAGE.format(others=", ".join(sorted(command_names() - {"demo"}))))
            return 0 if arguments else EXIT_USER_ERROR
        command = arguments[0]
        if command not in {"test", "install"} | command_names():
            raise Stop(
                f"{command}: no such command. Type one of {', '.join(sorted({'test', 'install'} | command_names()))}."
            )
        check_python(sys.version_info[:2], lowest_python(), runs)
        prepare()
        if command == "install":
            print(how_to_use(VENV))
            return 0
        return run(command_line(command, arguments[1:], VENV), in_checkout=command == "test")
    except Stop as stop:
        print(f"error: {stop}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("\nstopped. Rerun the command to resume.", file=sys.stderr)
        return INTERRUPTED


# --- what was typed


def command_names() -> "set[str]":
    """The commands that pyproject.toml declares, without their swinssl_."""
    return set(re.findall(r"^swinssl_(\w+) *=", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))


def command_line(command: str, arguments: "list[str]", venv: Path) -> "list[str]":
    """What to execute for a command."""
    if command == "test":
        chosen = [] if "--all" in arguments else QUICK
        rest = [argument for argument in arguments if argument != "--all"]
        # pytest takes the last of a repeated option, so `-n 0` or `-m slow` on the command line wins.
        return [str(python_of(venv)), "-m", "pytest", *IN_PARALLEL, *chosen, *rest]
    ending = ".exe" if os.name == "nt" else ""
    return [str(python_of(venv).parent / f"swinssl_{command}{ending}"), *arguments]


def how_to_use(venv: Path) -> str:
    """How a user gets at the commands without this file."""
    scripts = python_of(venv).parent
    activate = str(scripts / "activate") if os.name == "nt" else f'source "{scripts / "activate"}"'
    return f"Installed. Type\n  {activate}\nand then any command, such as swinssl_doctor."


# --- Python


def lowest_python() -> "tuple[int, int]":
    """The lowest Python that pyproject.toml allows."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    major, minor = re.findall(r'requires-python *= *">=(\d+)\.(\d+)"', text)[0]
    return int(major), int(minor)


def check_python(version: "tuple[int, ...]", lowest: "tuple[int, int]", runs: "Callable[[str], bool]") -> None:
    """Refuse a Python that is too old or has 32 bits, and name a better one if the machine has it."""
    if version >= lowest and sys.maxsize > 2**32:
        return
    found = "a 32-bit Python" if version >= lowest else "Python {}.{}".format(*version)
    newer = (f"python3.{minor}" for minor in range(lowest[1] + 8, lowest[1] - 1, -1))
    better = next((name for name in newer if runs(name)), None)
    remedy = (
        f"Type: {better} run.py ..." if better else "Install one from https://www.python.org/downloads or with conda."
    )
    raise Stop("swinssl needs a 64-bit Python {}.{} or newer; this is {}. {}".format(*lowest, found, remedy))


def runs(name: str) -> bool:
    """Whether a program of that name is there and starts; pyenv leaves some that do not."""
    path = shutil.which(name)
    return path is not None and subprocess.run([path, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0


# --- the environment


def python_of(venv: Path) -> Path:
    """The interpreter of an environment."""
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def wanted_stamp() -> "dict[str, str]":
    """What an environment of today has: Python version, content of the files that say what is in it.

    And its place: the programs in it name their interpreter by its whole path, so a moved one is broken.
    """
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        # Line ends differ between systems' checkouts.
        digest.update(name.encode() + (ROOT / name).read_bytes().replace(b"\r\n", b"\n"))
    return {
        "python": "{}.{}".format(*sys.version_info),
        "place": str(VENV),
        "content": digest.hexdigest(),
    }


def read_stamp(venv: Path) -> "dict[str, str] | None":
    """The stamp of an environment, without a content where it is half-made; None where somebody else made it."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv: Path, stamp: "dict[str, str]") -> None:
    """Write the stamp; the folder has it whole or as it was."""
    temporary = venv / (STAMP + ".new")
    temporary.write_text(json.dumps(stamp), encoding="utf-8")
    temporary.replace(venv / STAMP)


def next_step(stamp: "dict[str, str] | None", wanted: "dict[str, str]", *, exists: bool, works: bool) -> str:
    """What is to be done with the environment.

    Args:
        exists: there is a folder or file of its name.
        works: there is a Python in it.

    Returns:
        use: it is as wanted. install: it stands, but other libraries are wanted. make: there is none. remake: we made
        it, and it is half-made, moved, or of another Python. adopt: somebody else made it; it is
        installed into and never deleted. refuse: it is something else.
    """
    if not exists:
        return "make"
    known = stamp or {}
    foreign = stamp is None or known.get("made by") == "user"
    if foreign and not works:
        return "refuse"
    others = {name for name in wanted if known.get(name) != wanted[name]}
    if works and not others:
        return "use"
    if foreign:
        return "adopt"
    return "install" if works and others == {"content"} and "content" in known else "remake"


def prepare() -> None:
    """Bring the environment into the wanted state."""
    stamp, wanted = read_stamp(VENV), wanted_stamp()
    step = next_step(stamp, wanted, exists=VENV.exists(), works=python_of(VENV).exists())
    if step == "use":
        return
    if step == "refuse":
        raise Stop(f"{VENV} is not a Python environment, and run.py did not make it. Move it away or delete it.")
    started = time.time()
    if step in ("make", "remake"):
        make(again=step == "remake")
    say(f"Installing swinssl and what it needs into {VENV}.")
    say("The first time this takes 2 to 10 minutes, by the speed of the network. Nothing else is changed.")
    pip(PIP_ARGUMENTS)
    write_stamp(VENV, dict(wanted, **({"made by": "user"} if step == "adopt" else {})))
    say(f"Installed in {time.time() - started:.0f} s.")


def make(*, again: bool) -> None:
    """Make an empty environment, stamped as half-made; if `again`, in place of the one there."""
    if again:
        say(f"Removing {VENV}: it is incomplete, was moved, or is for another Python.")
        try:
            shutil.rmtree(VENV)
        except OSError as error:
            raise Stop(
                f"{error.filename}: {error.strerror}. Stop the programs that run from {VENV}, or delete it by hand."
            ) from None
    say(f"Making an environment in {VENV}.")
    VENV.mkdir()
    write_stamp(VENV, {})
    # Whoever runs this from inside an environment gets one that does not stand on it.
    python = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run([python, "-m", "venv", str(VENV)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace").strip()
        raise Stop(f"python -m venv failed:\n{said}\nOn Debian and Ubuntu: apt install python3-venv")


# --- pip


def pip(arguments: "list[str]") -> None:
    """Run pip of the environment; what it says goes into a log, large downloads are shown."""
    command = [str(python_of(VENV)), "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    environment = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8")
    said = []
    with subprocess.Popen(
        command, cwd=str(ROOT), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            for raw in process.stdout or ():
                said.append(raw.decode("utf-8", "replace").rstrip())
                shown = progress(said[-1])
                if shown:
                    say(f"  {shown}")
        except BaseException:
            process.kill()
            raise
    log = VENV / LOG
    log.write_text("\n".join(said) + "\n", encoding="utf-8")
    if process.returncode:
        last = "\n".join(f"  {line}" for line in said[-12:])
        raise Stop(f"pip could not install:\n{last}\n{remedy(said)}\nFull output of pip: {log}")


def progress(line: str) -> str:
    """What a user sees of a line of pip's: downloads that take a while, and the last long step."""
    size = re.search(r"Downloading (\S+?)-\d\S* \(([\d.]+) (MB|GB)\)", line)
    if size and (size[3] == "GB" or float(size[2]) >= 10):
        return f"downloading {size[1].split('/')[-1]}, {size[2]} {size[3]}"
    if line.startswith("Installing collected packages:"):
        return f"unpacking {line.count(',') + 1} packages, about a minute"
    return ""


def remedy(said: "list[str]") -> str:
    """What to do about pip's failure, by what it said."""
    text = "\n".join(said)
    if re.search(
        r"name resolution|getaddrinfo|NewConnectionError|Network is unreachable|timed out|ProxyError|40[37] ", text
    ):
        return (
            "This machine cannot reach the package index. Behind a proxy set HTTPS_PROXY; for an index of your own "
            "set PIP_INDEX_URL. Then rerun the command."
        )
    if re.search(r"SSLError|CERTIFICATE_VERIFY_FAILED", text):
        return (
            "A proxy answers with a certificate that Python does not trust. Set PIP_CERT to your organisation's file."
        )
    if re.search(r"No space left|Errno 28", text):
        return "The disk is full. PyTorch with CUDA needs 6 GB, without it 2 GB."
    if re.search(r"No matching distribution|Could not find a version", text):
        return (
            "The index has no such version for this Python ({}.{}) and system. Python may be too new, or the index is "
            "incomplete or not reached (PIP_INDEX_URL, HTTPS_PROXY).".format(*sys.version_info)
        )
    if re.search(r"Permission denied|Access is denied", text):
        return f"{VENV} cannot be written. Copy the checkout to a folder that you may write to."
    return "Rerun the command. If it fails again, report the output above."


# --- running


def run(command: "list[str]", *, in_checkout: bool) -> int:
    """Run a command of the environment in place of this program; its exit code is ours."""
    if not Path(command[0]).exists():
        raise Stop(f"{command[0]} is missing. Delete {VENV} and rerun the command.")
    if in_checkout:
        os.chdir(str(ROOT))
    sys.stdout.flush()
    if os.name != "nt":
        os.execv(command[0], command)
    process = subprocess.Popen(command)
    while True:  # Windows cannot replace a program; Ctrl-C goes to the command too, which ends in its own way
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def say(text: str) -> None:
    """Tell the user what happens; on stderr, which leaves stdout to the command."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
