"""What is known about cases beside their files: which structures were looked for, and which patient they are of.

Two tables may lie beside dataset.json, as a spreadsheet writes them (commas, semicolons or tabs):

    labels_present.csv    case, and a column of 0 and 1 a structure; or case,structures with names between semicolons
    groups.csv            case,group

Both stand above the keys `labels_present`, `groups` and `group_pattern` of dataset.json.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import csv_rows, csv_text, did_you_mean, listed
from swinssl.dataset.case import Case, normal_form
from swinssl.dataset.checks.finding import Finding
from swinssl.dataset.description import DESCRIPTION_FILE, Description

LABELS_PRESENT_FILE, GROUPS_FILE = "labels_present.csv", "groups.csv"
CASE, GROUP, STRUCTURES = "case", "group", "structures"
YES, NO = {"1", "yes", "true", "x"}, {"0", "no", "false", ""}
SHOWN = 5
PATTERN_SECONDS = 10
# A group of the case's id: the pattern's first, or the whole match.
MATCH = """import json, re, sys
pattern, ids = json.loads(sys.stdin.buffer.read())
found = {i: m for i in ids if (m := re.search(pattern, i))}
print(json.dumps({i: m[1] if m.re.groups and m[1] is not None else m[0] for i, m in found.items()}))"""

Rows = list[dict[str, str]]


def with_tables(folder: Path, cases: Sequence[Case], description: Description) -> tuple[list[Case], list[Finding]]:
    """The cases with `labels_present` and `group` filled in, and what does not fit in the tables."""
    findings: list[Finding] = []
    ids = [case.id for case in cases]
    present, where = _labels_present(folder, description, findings)
    _check_cases(present, ids, where, findings)
    if present:
        _report_without(
            [i for i in ids if i not in present], where, "all their structures count as annotated", findings
        )
    groups, where = _groups(folder, ids, description, findings)
    _check_cases(groups, ids, where, findings)
    if groups:
        _report_without([i for i in ids if i not in groups], where, "each is a group of its own", findings)
    filled = [replace(case, labels_present=present.get(case.id), group=groups.get(case.id)) for case in cases]
    return filled, findings


def read_groups(folder: Path) -> dict[str, str]:
    """Group by case in a folder's groups.csv; empty where there is none.

    Raises:
        UserError: the table cannot be read.
    """
    findings: list[Finding] = []
    groups = _groups_table(Path(folder) / GROUPS_FILE, findings)
    if findings:
        raise UserError(f"{folder}: {'; '.join(map(str, findings))}")
    return groups


def read_labels_present(folder: Path, description: Description) -> dict[str, tuple[str, ...]]:
    """Annotated structures by case, in a folder's labels_present.csv or its dataset.json; others have all.

    Raises:
        UserError: the table cannot be read, or names a structure that is not declared.
    """
    findings: list[Finding] = []
    present, _ = _labels_present(Path(folder), description, findings)
    if findings:
        raise UserError(f"{folder}: {'; '.join(map(str, findings))}")
    return present


def copy_tables(source: Path, target: Path, cases: Sequence[Case]) -> None:
    """Leave both tables in `target`, so that training and evaluation, which see no raw data set, know what they say.

    Groups are written out, wherever they came from.
    """
    present, groups = Path(target) / LABELS_PRESENT_FILE, Path(target) / GROUPS_FILE
    if not files.is_missing(source / LABELS_PRESENT_FILE):
        files.write_bytes(present, files.read_bytes(source / LABELS_PRESENT_FILE))
    else:
        present.unlink(missing_ok=True)
    rows = [(case.id, case.group) for case in cases if case.group is not None]
    if not rows:
        groups.unlink(missing_ok=True)
        return
    files.write_text(groups, csv_text({CASE: case_id, GROUP: group} for case_id, group in rows))


def _labels_present(
    folder: Path, description: Description, findings: list[Finding]
) -> tuple[dict[str, tuple[str, ...]], str]:
    names = description.labels.names
    path = folder / LABELS_PRESENT_FILE
    rows = _rows(path, findings)
    if rows is None:
        present, where = dict(description.labels_present), DESCRIPTION_FILE
    else:
        present, where = {row[CASE]: _structures_of(row, findings) for row in rows}, path.name
    for case_id, structures in present.items():
        for name in structures:
            if name not in names:
                message = f"labels_present: case {case_id!r} has {name!r}, which dataset.json does not declare"
                findings.append(Finding("E111", where, message, f"{did_you_mean(name, names)}Correct the name."))
    return {case_id: tuple(n for n in structures if n in names) for case_id, structures in present.items()}, where


def _structures_of(row: Mapping[str, str], findings: list[Finding]) -> tuple[str, ...]:
    if STRUCTURES in row:
        return tuple(name.strip() for name in row[STRUCTURES].split(";") if name.strip())
    columns = {name: value for name, value in row.items() if name != CASE}
    for name, value in columns.items():
        if value.lower() not in YES | NO:
            message = f"case {row[CASE]!r}: {name!r} is {value!r}; expected are 1 (annotated) and 0 (not)"
            findings.append(Finding("E111", LABELS_PRESENT_FILE, message, "Write 1 or 0."))
    return tuple(name for name, value in columns.items() if value.lower() in YES)


def _groups(
    folder: Path, ids: Sequence[str], description: Description, findings: list[Finding]
) -> tuple[dict[str, str], str]:
    path = folder / GROUPS_FILE
    if not files.is_missing(path):
        return _groups_table(path, findings), path.name
    if description.groups or description.group_pattern is None:
        return dict(description.groups), DESCRIPTION_FILE
    matched = _matched(description.group_pattern, ids)
    if matched is None:
        message = f'"group_pattern" {description.group_pattern.pattern!r} needs over {PATTERN_SECONDS} s for these ids'
        findings.append(Finding("E103", DESCRIPTION_FILE, message, "Do not repeat what repeats: (a+)+ becomes a+."))
    return matched or {}, DESCRIPTION_FILE


def _matched(pattern: re.Pattern[str], ids: Sequence[str]) -> dict[str, str] | None:
    """Group by case id; None where the pattern takes too long.

    Nothing can stop a regular expression that backtracks for ever but the end of its process.
    """
    job = json.dumps([pattern.pattern, list(ids)])
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", MATCH],
            input=job.encode(),
            capture_output=True,
            timeout=PATTERN_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return None
    matched: dict[str, str] = json.loads(done.stdout)
    return matched


def _groups_table(path: Path, findings: list[Finding]) -> dict[str, str]:
    rows = _rows(path, findings)
    if rows and GROUP not in rows[0]:
        message = f"has the columns {', '.join(rows[0])}; expected are {CASE} and {GROUP}"
        findings.append(Finding("E111", path.name, message, "Rename the columns."))
        return {}
    return {row[CASE]: row[GROUP] for row in rows or [] if row[GROUP]}


def _rows(path: Path, findings: list[Finding]) -> Rows | None:
    """The rows of a table, stripped, with the case column first; None where there is no table."""
    if files.is_missing(path):
        return None
    try:
        text = files.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        findings.append(Finding("E111", path.name, f"cannot be read ({reason})", "Save it as UTF-8 text."))
        return []
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    try:
        lines = [[field.strip() for field in row] for _, row in csv_rows(text, delimiter=separator)]
    except ValueError as error:
        findings.append(Finding("E111", path.name, f"cannot be read as CSV ({error})", "Save it again as CSV."))
        return []
    names = lines[0] if lines else []
    # A spreadsheet leaves out empty fields at the end of a row.
    rows = [dict(zip(names, [*row, *[""] * len(names)], strict=False)) for row in lines[1:] if any(row)]
    if rows and CASE not in rows[0]:
        message = f"has the columns {', '.join(rows[0])}; one must be {CASE!r}"
        findings.append(Finding("E111", path.name, message, "Rename the column with the case ids."))
        return []
    seen: set[str] = set()
    for row in rows:
        row[CASE] = normal_form(row[CASE])
        if row[CASE] in seen:
            findings.append(Finding("E111", path.name, f"has case {row[CASE]!r} twice", "Remove one of the rows."))
        seen.add(row[CASE])
    return rows


def _check_cases(listed: Mapping[str, object], ids: Sequence[str], where: str, findings: list[Finding]) -> None:
    for case_id in listed:
        if case_id not in ids:
            message = f"names the case {case_id!r}, which does not exist"
            findings.append(Finding("E111", where, message, f"{did_you_mean(case_id, ids)}Correct or remove it."))


def _report_without(ids: Sequence[str], where: str, meaning: str, findings: list[Finding]) -> None:
    if ids:
        message = f"cases without an entry: {len(ids)} ({listed(ids, most=SHOWN)}); {meaning}"
        findings.append(Finding("W108", where, message, "Add them if this is not intended."))
