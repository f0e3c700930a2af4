"""Progress: a plain line now and then in a log, a bar on a terminal."""

from __future__ import annotations

import pytest

from swinssl.core import terminal as progress
from swinssl.core.terminal import Meter, progress_to, track
from swinssl.core.text import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (5 * 3600 + 10 * 60 + 59, "5 h 10 min"),
        (86_399, "23 h 59 min"),
        (2 * 86_400 + 3 * 3600 + 1800, "2 d 3 h"),
    ],
)
def test_a_duration_in_its_two_largest_units(seconds, words):
    assert duration(seconds) == words


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves by hand."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def lines(capsys):
    """What stands on stderr since the last call, as commands show it; nothing ever stands on stdout."""

    def read():
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()

    with progress_to("terminal"):
        yield read


class TestPlainLines:
    def test_one_every_half_minute_at_most(self, clock, lines):
        with Meter("preprocessing", total=600) as meter:
            for done in range(1, 601):
                clock.now += 0.5
                meter.update(done)
        # 300 s: a line each 30 s, at 2 cases a second.
        found = lines()
        assert len(found) == 10
        assert found[0] == "preprocessing: 60 of 600, 2.00/s, 4 min 30 s left"
        assert found[-1] == "preprocessing: 600 of 600, 2.00/s, 0 s left"

    def test_short_work_says_nothing(self, clock, lines):
        with Meter("checking", total=3) as meter:
            for done in (1, 2, 3):
                clock.now += 9.9
                meter.update(done)
        assert lines() == []

    def test_slow_work_counts_seconds_a_unit(self, clock, lines):
        with Meter("predicting", total=5) as meter:
            clock.now += 40
            meter.update(1, note="case_7")
        assert lines() == ["predicting: 1 of 5, 40.0 s each, 2 min 40 s left, case_7"]

    def test_a_resumed_run_counts_only_what_is_new(self, clock, lines):
        with Meter("training", total=1000, done=900) as meter:
            clock.now += 50
            meter.update(910)
        assert lines() == ["training: 910 of 1000, 0.20/s, 7 min 30 s left"]

    def test_without_a_total_nothing_is_left_to_say(self, clock, lines):
        with Meter("reading", total=None) as meter:
            clock.now += 60
            meter.update(30)
        assert lines() == ["reading: 30, 0.50/s"]

    def test_a_total_that_turns_out_otherwise_counts_from_then_on(self, clock, lines):
        with Meter("predicting, windows", total=100) as meter:
            clock.now += 40
            meter.update(40, total=240)
            clock.now += 40
            meter.update(80)
            clock.now += 40
            meter.update(120, total=120)
        assert lines() == [
            "predicting, windows: 40 of 240, 1.00/s, 3 min 20 s left",
            "predicting, windows: 80 of 240, 1.00/s, 2 min 40 s left",
            "predicting, windows: 120 of 120, 1.00/s, 0 s left",
        ]

    def test_nothing_done_gives_no_rate(self, clock, lines):
        with Meter("training", total=10) as meter:
            clock.now += 31
            meter.update(0)
        assert lines() == ["training: 0 of 10"]


class TestTimeLeft:
    def test_the_slow_first_units_are_not_extrapolated(self):
        meter = Meter("training", total=10_000)
        meter.started -= 2.0
        assert meter._rate(1) == "0.50/s"

    def test_never_exceeds_the_time_budget(self, clock, lines):
        with Meter("pretraining", total=10_000, seconds_allowed=45) as meter:
            clock.now += 31
            meter.update(20)
        assert lines() == ["pretraining: 20 of 10000, 0.65/s, 14 s left"]

    def test_is_the_budget_where_the_number_of_units_is_not_known(self, clock, lines):
        with Meter("pretraining", total=None, seconds_allowed=45) as meter:
            clock.now += 31
            meter.update(20)
            clock.now += 31  # over time: nothing below zero
            meter.update(25)
        assert lines() == ["pretraining: 20, 0.65/s, 14 s left", "pretraining: 25, 0.40/s, 0 s left"]

    def test_is_that_of_the_work_where_it_ends_before_the_budget(self, clock, lines):
        with Meter("training fold 0", total=20, seconds_allowed=6000) as meter:
            clock.now += 40
            meter.update(10)
        assert lines() == ["training fold 0: 10 of 20, 0.25/s, 40 s left"]


class TestBar:
    @pytest.fixture(autouse=True)
    def terminal(self, monkeypatch):
        monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
        with progress_to("terminal"):
            yield

    def test_follows_the_work_and_a_corrected_total(self):
        with Meter("training", total=10, done=4) as meter:
            (task,) = meter.bar.tasks
            assert (task.description, task.completed, task.total) == ("training", 4, 10)
            meter.update(6, note="loss 0.3", total=20)
            assert (task.completed, task.total) == (6, 20) and task.fields["note"].endswith("loss 0.3")

    @pytest.mark.parametrize("failure", [None, ValueError])
    def test_gives_the_terminal_back_whatever_happens(self, failure):
        meter = Meter("training", total=10)
        try:
            with meter:
                assert meter.bar.live.is_started
                if failure:
                    raise failure
        except ValueError:
            pass
        assert not meter.bar.live.is_started


class TestTrack:
    def test_passes_the_items_on_and_counts_them(self, clock, lines):
        found = []
        for item in track(["a", "b", "c"], "measuring"):
            clock.now += 31
            found.append(item)
        assert found == ["a", "b", "c"]
        assert [line.split(",")[0] for line in lines()] == [f"measuring: {n} of 3" for n in (1, 2, 3)]

    def test_takes_the_total_of_a_generator_from_the_caller(self, clock, lines):
        for _ in track((n for n in range(2)), "measuring", total=2):
            clock.now += 31
        assert [line.split(",")[0] for line in lines()] == ["measuring: 1 of 2", "measuring: 2 of 2"]

    def test_items_are_fetched_one_by_one(self):
        fetched = []
        items = (fetched.append(n) or n for n in range(5))
        next(track(items, "measuring"))
        assert fetched == [0]


class TestWhereItGoes:
    def test_nowhere_unless_somebody_asks(self, clock, capsys):
        for _ in track(range(3), "reading"):
            clock.now += 100
        assert capsys.readouterr() == ("", "")

    def test_to_a_function_and_to_that_of_around_where_there_is_none(self, clock, capsys):
        seen = []
        with progress_to(lambda *said: seen.append(said)), progress_to(None):
            for _ in track(range(2), "reading"):
                clock.now += 100
        assert seen == [("reading", 1, 2), ("reading", 2, 2)] and capsys.readouterr() == ("", "")
