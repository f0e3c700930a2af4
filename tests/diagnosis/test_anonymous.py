"""A report names neither the user, nor the host, nor the home folder."""

from __future__ import annotations

import getpass
import platform
from pathlib import Path

import pytest

from swinssl.diagnosis.advice import Advice
from swinssl.diagnosis.anonymous import anonymised


@pytest.fixture(autouse=True)
def somebody(monkeypatch):
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: cls("/home/jane.doe")))
    monkeypatch.setattr(getpass, "getuser", lambda: "jdoe")
    monkeypatch.setattr(platform, "node", lambda: "ward7-pc.clinic.example")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/jane.doe/data", "~/data"),
        ("/home/jane.doe", "~"),
        ("root /home/jane.doe, exists", "root ~, exists"),
        ("/home/jane.doefoo/x", "/home/jane.doefoo/x"),
        ("/scratch/jdoe/raw", "/scratch/<user>/raw"),
        ("C:\\Users\\JDoe\\raw", "C:\\Users\\<user>\\raw"),
        ("jdoes", "jdoes"),
        ("on ward7-pc.clinic.example at work", "on <host> at work"),
        ("ward7-pc", "<host>"),
        ("ward7-pcs", "ward7-pcs"),
    ],
)
def test_identifying_text_is_replaced_and_other_text_left(text, shown):
    assert anonymised(text) == shown


def test_everything_inside_is_reached():
    facts = {"a": ["/home/jane.doe/x", 3, None], "b": {"c": ("jdoe", True)}}
    assert anonymised(facts) == {"a": ["~/x", 3, None], "b": {"c": ("<user>", True)}}
    advice = (Advice("note", "in /home/jane.doe/x", "Ask jdoe."),)
    assert anonymised(advice) == (Advice("note", "in ~/x", "Ask <user>."),)


def test_names_that_are_words_stay_words(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    assert anonymised("the root folder") == "the root folder"


def test_a_system_that_knows_neither_user_nor_home_is_no_obstacle(monkeypatch):
    def unknown(*_):
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setattr(getpass, "getuser", lambda: (_ for _ in ()).throw(KeyError("uid")))
    assert anonymised("/home/jane.doe") == "/home/jane.doe"
