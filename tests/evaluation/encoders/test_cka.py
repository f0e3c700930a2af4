"""CKA: against the formula spelled out, its invariances, and that neither samples nor minibatches bias it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from swinssl.evaluation.encoders.cka import ROWS, MinibatchCka, cheaper_form, unbiased_hsic

WIDTHS = (3, 8, 8, 20)


def features(n, *, seed=0, widths=WIDTHS):
    """Layers that share something: each a bent mixture of the same few numbers, and noise, round some mean."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 4))
    return [
        np.tanh(common @ rng.normal(size=(4, c))) + rng.normal(size=(n, c)) + 5 * rng.normal(size=c) for c in widths
    ]


def spelled_out(x, y):
    """HSIC_1 as Song et al. print it, matrix by matrix."""
    n, one = len(x), np.ones(len(x))
    k, el = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(el, 0)
    sums = np.trace(k @ el) + (one @ k @ one) * (one @ el @ one) / ((n - 1) * (n - 2))
    return (sums - 2 / (n - 2) * (one @ k @ el @ one)) / (n * (n - 3))


def cka_of(*minibatches):
    cka = MinibatchCka()
    for layers in minibatches:
        cka.add(layers)
    return cka.result()


@pytest.mark.parametrize("form", ["gram", "features"])
@pytest.mark.parametrize("n", [4, 50, ROWS, 2 * ROWS + 7])
def test_both_forms_are_the_formula_for_every_pair(form, n):
    layers = features(n)
    expected = [[spelled_out(x, y) for y in layers] for x in layers]
    np.testing.assert_allclose(unbiased_hsic(layers, form=form), expected, rtol=1e-9, atol=1e-9)


def test_float32_features_lose_nothing_to_their_mean():
    layers = features(60)
    far = [(x + 1000).astype(np.float32) for x in layers]
    as_stored = [x.astype(np.float64) - 1000 for x in far]
    for form in ("gram", "features"):
        np.testing.assert_allclose(unbiased_hsic(far, form=form), unbiased_hsic(as_stored), rtol=1e-9, atol=1e-10)


def test_the_form_is_chosen_by_samples_and_channels():
    assert cheaper_form(48, [48] * 28) == "gram"
    assert cheaper_form(4096, [16] * 16) == "features"
    # Measured to be about equal at 500 samples for two encoders of 16 to 128 channels.
    widths = [16, 16, 32, 32, 64, 64, 128, 128] * 2
    assert [cheaper_form(n, widths) for n in (400, 600)] == ["gram", "features"]


class TestInvariances:
    def test_a_layer_is_like_itself(self):
        np.testing.assert_allclose(np.diag(cka_of(features(30), features(30, seed=1)).matrix), 1, rtol=1e-12)

    def test_rotation_scale_and_offset_change_nothing(self):
        rng = np.random.default_rng(3)
        layers = features(40)
        turned = []
        for x in layers:
            rotation, _ = np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))
            turned.append(7.5 * x @ rotation + rng.normal(size=x.shape[1]))
        found = cka_of(layers + turned).matrix
        count = len(layers)
        for part in (found[:count, count:], found[count:, count:]):
            np.testing.assert_allclose(part, found[:count, :count], rtol=1e-9)

    def test_another_linear_map_is_seen(self):
        x = features(40)[1]
        assert cka_of([x, x * np.geomspace(1, 30, x.shape[1])]).matrix[0, 1] < 0.95

    def test_the_order_of_samples_does_not_matter_but_their_pairing_does(self):
        x, y = features(200)[:2]
        order = np.random.default_rng(0).permutation(len(x))
        together, apart = cka_of([x[order], y[order]]).matrix, cka_of([x, y[order]]).matrix
        np.testing.assert_allclose(together, cka_of([x, y]).matrix)
        assert abs(apart[0, 1]) < 0.1 < together[0, 1]


class TestUnbiasedness:
    def test_the_mean_over_all_minibatches_is_the_whole_batch(self):
        """Of every subset of 5 out of 8 samples: a U-statistic, so exactly."""
        layers = features(8)
        subsets = [unbiased_hsic([x[list(some)] for x in layers]) for some in combinations(range(8), 5)]
        np.testing.assert_allclose(np.mean(subsets, axis=0), unbiased_hsic(layers), rtol=1e-10, atol=1e-10)

    def test_independent_features_have_none_even_of_few_samples(self):
        rng = np.random.default_rng(0)
        found = [unbiased_hsic([rng.normal(size=(6, 40)), rng.exponential(size=(6, 10))])[0, 1] for _ in range(4000)]
        error = np.std(found) / np.sqrt(len(found))
        assert abs(np.mean(found)) < 3 * error
        # The biased estimator tr(KHLH) / (n - 1)^2 lies many errors above 0 here.
        x, y = (draw - draw.mean(axis=0) for draw in (rng.normal(size=(6, 40)), rng.exponential(size=(6, 10))))
        assert np.sum((x.T @ y) ** 2) / 25 > 10 * error

    def test_minibatch_cka_comes_to_that_of_all_samples(self):
        layers = features(4096)
        whole = cka_of(layers).matrix
        small = cka_of(*([x[start : start + 16] for x in layers] for start in range(0, 4096, 16)))
        assert np.all(np.abs(small.matrix - whole) < 3.5 * small.standard_error + 1e-9)
        assert small.standard_error.max() < 0.03

    def test_the_standard_error_is_the_spread_of_repeated_estimates(self):
        def estimate(seed):
            return cka_of(*(features_of_one_source(16, seed=1000 * seed + step) for step in range(20)))

        repeated = [estimate(seed) for seed in range(60)]
        spread = np.std([one.matrix[0, 1] for one in repeated], ddof=1)
        said = np.mean([one.standard_error[0, 1] for one in repeated])
        assert 0.7 < said / spread < 1.4

    def test_minibatches_that_belong_together_count_once(self):
        halves = [features(16, seed=seed) for seed in range(4)]
        cka = MinibatchCka()
        cka.add(*halves[:2])
        cka.add(*halves[2:])
        apart = cka_of(*halves)
        np.testing.assert_allclose(cka.result().matrix, apart.matrix)
        assert not np.allclose(cka.result().standard_error, apart.standard_error)


def features_of_one_source(n, *, seed):
    """Two layers whose relation is always the same."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5))
    return [x, x[:, :2] + 0.7 * rng.normal(size=(n, 2))]


class TestDegenerate:
    def test_a_single_addition_has_no_standard_error(self):
        assert np.isnan(cka_of(features(10)).standard_error).all()

    def test_a_layer_that_does_not_vary_has_no_cka(self):
        x = features(10)[0]
        found = cka_of([x, np.full((10, 3), 0.1)]).matrix
        assert found[0, 0] == pytest.approx(1) and np.isnan(found[[0, 1, 1], [1, 0, 1]]).all()

    @pytest.mark.parametrize("counts", [(3, 3), (10, 9)])
    def test_too_few_samples_or_not_the_same_are_refused(self, counts):
        with pytest.raises(ValueError, match="at least 4"):
            unbiased_hsic([np.zeros((n, 2)) for n in counts])
