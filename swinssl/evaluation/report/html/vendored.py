"""The viewer that comes with the package: NiiVue, unchanged, with the licences that go wherever it goes."""

from __future__ import annotations

from importlib import resources

FOLDER = "vendor"
VIEWER, NOTICE, LICENCES = "niivue.umd.js", "NOTICE", ("LICENSE", "LICENSES-BUNDLED")


def viewer_source() -> str:
    """The script; it defines `niivue`."""
    return _read(VIEWER)


def viewer_licences() -> str:
    """Who wrote it, and under which terms: a report that holds the viewer hands it on, so they must be in it."""
    return "\n\n".join(_read(name).strip() for name in (NOTICE, *LICENCES))


def notice() -> dict[str, str]:
    """What NOTICE states of the file: name, version, source, sha256."""
    lines = (line.partition(": ") for line in _read(NOTICE).splitlines() if ": " in line)
    return {key.strip(): value.strip() for key, _, value in lines}


def _read(name: str) -> str:
    return (resources.files(__package__) / FOLDER / name).read_text(encoding="utf-8")
