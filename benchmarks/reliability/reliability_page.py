"""Update the tables of docs/reliability.md from the last results of kills.py and fuzz.py.

python benchmarks/reliability/reliability_page.py
"""

from __future__ import annotations

import re
from pathlib import Path

from swinssl.core import files

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"


def main() -> None:
    """Put each table between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    for name in ("kills", "fuzz"):
        table = (ROOT / "benchmarks" / "reliability" / "results" / f"{name}.md").read_text(encoding="utf-8")
        mark = f"<!-- benchmarks/reliability/results/{name}.md -->"
        text = re.sub(
            f"{mark}.*?<!-- end -->", lambda _, new=f"{mark}\n{table}<!-- end -->": new, text, flags=re.DOTALL
        )
    files.write_text(PAGE, text)


if __name__ == "__main__":
    main()
