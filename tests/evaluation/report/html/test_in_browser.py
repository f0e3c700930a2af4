"""The page in a real browser: it runs under its own policy, sorts, and shows cases."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest
from support.headless_chromium import Page, find_chromium
from support.made_reports import labels, made_case, report_of

from swinssl.evaluation.report.html.content import Figure
from swinssl.evaluation.report.html.write import write_report

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)"),
]

READY = "swinsslViewers[0].nv && swinsslViewers[0].nv.volumes.length && !document.querySelector('[aria-busy]')"
IDLE = "!document.querySelector('[aria-busy]')"
COLUMN = "[...document.querySelectorAll('table')[0].tBodies[0].rows].map(row => row.cells[{}].textContent).join(' ')"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    evil = made_case(folder, "<b onclick=alert(1)>", shifts={"</script><script>alert(1)</script>": 2})
    cases = [made_case(folder, "a"), made_case(folder, "b", shifts={"exact": 0}), evil]
    svg = folder / "f.svg"
    svg.write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect width="9" height="9"/></svg>')
    write_report(folder / "report.html", report_of(*cases, figures=[Figure(svg, "caption", "a square")]))
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(report):
    with Page(CHROMIUM) as page:
        page.open(report)
        page.evaluate("document.querySelector('[data-viewer]').scrollIntoView()")
        page.wait_for(READY)
        yield page


@pytest.fixture(autouse=True)
def nothing_to_complain(page, report):
    """After every test: no error on the console, nothing forbidden by the policy, nothing asked for but the file."""
    yield
    assert page.complaints == []
    assert [one for one in page.requests if not one.startswith("data:image/")] == [report.as_uri()]


def choose(page, case):
    page.evaluate(f"[...document.querySelectorAll('.choose')].find(b => b.textContent === {case!r}).click()")
    page.wait_for(IDLE)


def press_map(page, name):
    page.evaluate(f"[...document.querySelectorAll('.maps button')].find(b => b.textContent === {name!r}).click()")
    page.wait_for(IDLE)


def coloured(page, folder, colour):
    """Pixels of the canvas that lean to a colour."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    picture = matplotlib.image.imread(page.screenshot(folder / "canvas.png", "canvas"))[..., :3]
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    # Mixed with grey behind it, a colour keeps the direction in which it differs from grey.
    tint = picture - picture.mean(axis=-1, keepdims=True)
    wanted -= wanted.mean()
    strength = np.linalg.norm(tint, axis=-1)
    along = (tint @ wanted) / np.maximum(strength * np.linalg.norm(wanted), 1e-6)
    return int(((along > 0.97) & (strength > 0.1)).sum()), picture


def test_a_press_sorts_text_and_another_turns_it_round(page):
    head = "document.querySelectorAll('table')[0].querySelectorAll('th button')[0]"
    for order, names in (("ascending", "a b c d"), ("descending", "d c b a"), ("ascending", "a b c d")):
        page.evaluate(f"{head}.click()")
        assert page.evaluate(COLUMN.format(0)) == names
        assert page.evaluate(f"{head}.closest('th').getAttribute('aria-sort')") == order


def test_keys_sort_numbers_as_numbers_and_keep_what_is_missing_last(page):
    head = "document.querySelectorAll('table')[0].querySelectorAll('th button')[1]"
    page.evaluate(f"{head}.focus()")
    page.press("Enter", 13)
    assert page.evaluate(COLUMN.format(0)) == "b c d a"
    page.press("Enter", 13)
    assert page.evaluate(COLUMN.format(0)) == "d c b a"
    page.evaluate("document.querySelectorAll('table')[0].querySelectorAll('th button')[2].focus()")
    page.press("Enter", 13)
    assert page.evaluate(COLUMN.format(2)) == "100 10 9 8★ (best)"
    assert page.evaluate("document.querySelectorAll('[aria-sort]').length") == 1


def test_the_worst_case_is_shown_first_with_its_labels(page, tmp_path):
    choose(page, "a")
    press_map(page, "shifted")
    assert page.evaluate("document.querySelector('.title').textContent") == "Case a, task"
    orange, picture = coloured(page, tmp_path, "#E69F00")
    blue, _ = coloured(page, tmp_path, "#56B4E9")
    # The organ is larger than the tumour in it, and the image is not blank either.
    assert orange > blue > 50 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    assert page.evaluate("document.querySelector('.legend').textContent") == "organtumour"
    press_map(page, "none")
    assert coloured(page, tmp_path, "#E69F00")[0] == 0


def test_only_errors_are_counted_right(page):
    choose(page, "a")
    press_map(page, "shifted")
    page.evaluate("document.querySelector('[name=errors]').click()")
    page.wait_for(IDLE)
    found = page.evaluate("[1, 2, 3].map(c => swinsslViewers[0].nv.volumes[1].img.filter(v => v === c).length)")
    reference, prediction = labels(), labels(3)
    both = (reference > 0) & (prediction > 0)
    wanted = [
        (reference > 0) & ~(prediction > 0),
        (prediction > 0) & ~(reference > 0),
        both & (reference != prediction),
    ]
    assert found == [int(one.sum()) for one in wanted]
    assert page.evaluate("document.querySelector('.legend').textContent") == "missedtoo muchanother structure"
    page.evaluate("document.querySelector('[name=errors]').click()")
    page.wait_for(IDLE)


def test_the_place_is_said_in_words_and_sliders_move_it(page):
    choose(page, "a")
    # The tumour's place in the crop, whose first voxel is (1, 0, 0) of the whole.
    page.evaluate("""{const set = (axis, value) => {const s = document.querySelector(`[name=${axis}]`); s.value = value;
        s.dispatchEvent(new Event("input"))}; set("x", 15), set("y", 15), set("z", 8)}""")
    said = page.evaluate("document.querySelector('.place').textContent")
    assert said == "Under the cross: reference: tumour; shifted: organ; exact: tumour"


def test_a_model_without_prediction_cannot_be_chosen(page):
    choose(page, "b")
    assert (
        page.evaluate("[...document.querySelectorAll('.maps button:disabled')].map(b => b.textContent)[0]") == "shifted"
    )
    assert "shifted: no prediction of this case." in page.evaluate("document.querySelector('.notes').textContent")
    assert page.evaluate("swinsslViewers[0].nv.volumes.length") == 2


def test_markup_in_names_stays_text(page):
    choose(page, "<b onclick=alert(1)>")
    assert page.evaluate("document.querySelector('.title').textContent") == "Case <b onclick=alert(1)>, task"
    assert page.evaluate("document.querySelectorAll('b').length") == 0


def test_the_policy_stops_a_script_that_got_in(report, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        report.read_text().replace("<main", "<script>window.ran = 1</script><img src=x onerror='ran = 1'><main")
    )
    with Page(CHROMIUM) as page:
        page.open(bad)
        page.evaluate("fetch('data:,x').catch(() => { window.refused = true })")
        assert page.evaluate("window.ran === undefined && window.refused") is True
        assert len(page.complaints) >= 3


@pytest.mark.parametrize("dark", [False, True])
def test_a_telephone_shows_it_without_sideways_scrolling(report, tmp_path, dark):
    with Page(CHROMIUM, width=360, height=700, dark=dark) as page:
        page.open(report)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        corner = matplotlib.image.imread(page.screenshot(tmp_path / "p.png"))[2, 2, :3].mean()
        assert corner < 0.2 if dark else corner > 0.9
