"""Names with markup, formulas and control characters are shown as they are written."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from swinssl.cli.tables import Table, print_table, styled
from swinssl.core import terminal
from swinssl.core.pictures import legend_name, new_figure, save_figure, spare_the_run, tick_names
from swinssl.core.text import csv_records, csv_text, markdown_cell, message, printable, shortened

NAMES = [
    "[/x]",
    "[left] lung",
    "a $_$",
    "vol $x_{$",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "two\nerror: lines",
    "=cmd()",
    "long " * 60,
    "\u202eder\u2066",
    "\U0001f9e0 \U0001f468\u200d\U0001f469",
    "_hidden",
    "<b>&amp;</b>",
    "a|b`c`",
    "\x85next\u2028line",
]


@pytest.mark.parametrize("name", NAMES)
class TestEverySink:
    def test_a_printed_name_is_one_line_without_control_characters(self, name, capsys):
        terminal.print(f"structures: {name}")
        out = capsys.readouterr().out
        assert out.endswith("\n") and out[:-1].isprintable() | ("\u200d" in out) and len(out.splitlines()) == 1

    def test_a_cell_of_a_table_is_one_line(self, name, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "1000")
        table = Table("structure", name[:20])
        table.add_row(name, styled((name, "bold red"), ("Rename it.", "dim"), separator="\n"))
        print_table(table)
        out = capsys.readouterr().out
        assert "\x1b" not in out and out.count(printable(name).rstrip()) >= 2

    def test_a_log_record_is_one_message(self, name):
        record = logging.LogRecord("swinssl", logging.WARNING, "", 0, "case %s", (name,), None)
        first, *others = terminal._MessageFormatter().format(record).split("\n")
        assert first.startswith("case ") and all(line.startswith("  ") for line in others)
        assert printable("\n".join([first, *others]), keep="\n") == "\n".join([first, *others])

    def test_csv_has_no_formula_and_is_read_back(self, name):
        text = csv_text([{"name": name, name: -0.5}])
        assert csv_records(text) == [{"name": name, name: "-0.5"}]
        assert not any(cell.lstrip('"')[:1] in set("=+@") for line in text.splitlines() for cell in line.split(","))

    def test_a_picture_shows_it_as_it_is(self, name, tmp_path):
        figure = new_figure(4, 3)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], label=legend_name(name))
        axes.set_title(name)
        axes.set_yticks([0, 1], tick_names([name, name]))
        axes.legend()
        for ending in ("png", "svg"):
            save_figure(figure, tmp_path / f"a.{ending}", dots_per_inch=40)
        drawn = "".join(ElementTree.parse(tmp_path / "a.svg").getroot().itertext())
        shown = [shortened(printable(line), 32)[:14] for line in name.split("\n")]
        assert all(drawn.count(line) >= 2 for line in shown)

    def test_a_cell_of_markdown_ends_where_it_ends(self, name):
        cell = markdown_cell(name)
        assert "\n" not in cell and "|" not in cell.replace("\\|", "") and "<" not in cell.replace("\\<", "")


def test_plain_names_are_left_alone():
    for name in ("liver", "left kidney, [L]", "Läsion (groß)", "腫瘍", "smit_500"):
        assert printable(name) == name == markdown_cell(name)


def test_what_is_written_as_an_escape():
    assert printable("a\x1b\n\u202e\ud800") == r"a\x1b\n\u202e\ud800"
    assert message("a\nb\n  c\x1b") == "a\n  b\n  c\\x1b"
    assert shortened("0123456789", 7) == "01...89"


def test_numbers_are_no_formulas_and_apostrophes_survive():
    rows = [{"x": "-1.5e3"}, {"x": "'=a"}, {"x": "''-b"}, {"x": "'c"}, {"x": "\td"}]
    text = csv_text(rows)
    assert text.splitlines()[1:] == ["-1.5e3", "''=a", "'''-b", "'c", "'\td"]
    assert csv_records(text) == rows


def test_a_picture_that_cannot_be_drawn_is_a_warning(tmp_path, caplog):
    old = tmp_path / "old.png"
    old.write_bytes(b"as it was")
    with spare_the_run(old):
        raise ValueError("no \x1b")
    assert "old.png is not drawn (ValueError: no \x1b)" in caplog.text and old.read_bytes() == b"as it was"
    with pytest.raises(KeyboardInterrupt), spare_the_run(old):
        raise KeyboardInterrupt


class TestClosedStreams:
    """A command whose caller closed a stream does its work and ends with the code that it would have had."""

    @pytest.mark.parametrize("closed", [0, 1, 2])
    def test_the_command_ends_as_it_would(self, closed, tmp_path):
        code = (
            "from swinssl.cli.command import command\nfrom swinssl.core.terminal import print, track\n"
            "from swinssl.core.errors import UserError\nimport sys\n"
            f"def work():\n    f = open({str(tmp_path / 'file')!r}, 'w')\n    list(track([1], 'working'))\n"
            "    print('said', file=sys.stderr); print('result')\n    f.write('kept')\n    f.close()\n"
            "    raise UserError('refused')\ncommand(work)()\n"
        )
        program = f"import os; os.close({closed}); os.execv({sys.executable!r}, [{sys.executable!r}, '-c', {code!r}])"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 2 and (tmp_path / "file").read_text() == "kept"
        assert ("error: refused" in done.stderr) == (closed != 2) and ("result" in done.stdout) == (closed != 1)
