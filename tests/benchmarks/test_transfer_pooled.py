"""All draws that the repository keeps, pooled: the committed page is what the committed rows come to."""

from __future__ import annotations

import pytest
from transfer_pooled import SCRATCH, TEXT, make_text, means_by_draw, pooled_scores

from swinssl.evaluation.comparison.paired_comparison import compare_pairs


def test_the_committed_page_comes_out_again_and_has_six_draws():
    scores = pooled_scores()
    assert make_text(scores) == TEXT.read_text(encoding="utf-8")
    one = compare_pairs(scores, "smit", SCRATCH)
    assert one.over_draws.draws == 6 and one.is_shown
    # A draw is a unit, whatever number of test cases it has.
    assert one.over_draws.mean == pytest.approx(sum(means_by_draw(scores, one)) / 6)
