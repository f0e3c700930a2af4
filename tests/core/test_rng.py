"""Keyed random draws: a draw depends on its key and on nothing else."""

from __future__ import annotations

import hashlib
import itertools
import struct
import subprocess
import sys

import numpy as np
import pytest

from swinssl.core.rng import KeyedRng, generator

# The first 64 bits of some keys. A change here means that no run can be resumed or repeated across it.
KNOWN = {
    (0, "crop", 0, 0): 0x238B_9C1B_6DCF_9455,
    (0, "crop", 0, 1): 0xBB56_3B63_3CA7_626D,
    (0, "crop", 1, 0): 0x1A6F_854D_AF47_890A,
    (0, "mask", 0, 0): 0x6198_7071_E938_BA78,
    (1, "crop", 0, 0): 0x0090_87CA_F0D2_D932,
    (7, "noise", 12_345, 31): 0xB7D0_A520_3CB1_1342,
}


def first_bits(*key):
    return int(generator(*key).bit_generator.random_raw())


@pytest.mark.parametrize("key", KNOWN, ids=str)
def test_known_answers(key):
    assert first_bits(*key) == KNOWN[key]


def test_the_bits_are_those_of_philox_keyed_by_blake2b():
    """A second implementation, after Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011)."""
    digest = hashlib.blake2b(b"7|noise|12345|31", digest_size=16).digest()
    assert philox_4x64(counter=1, key=struct.unpack("<2Q", digest))[0] == KNOWN[7, "noise", 12_345, 31]


def philox_4x64(*, counter, key):
    """The four words of one counter after ten rounds."""
    word = 2**64 - 1
    x, (k0, k1) = [counter, 0, 0, 0], key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [(second >> 64) ^ x[1] ^ k0, second & word, (first >> 64) ^ x[3] ^ k1, first & word]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & word, (k1 + 0xBB67AE8584CAA73B) & word
    return x


def test_known_numbers():
    """What numpy makes of the bits; a change is numpy's, and as harmful."""
    draw = generator(0, "crop")
    found = (draw.random(), int(draw.integers(1000)), draw.normal())
    assert found == (0.13884902639057217, 427, -0.9343606274659068)


def test_another_process_draws_the_same():
    # Python's own hash() of a text, for one, differs from process to process.
    code = "from swinssl.core.rng import generator; print(generator(7, 'noise', 12345, 31).bit_generator.random_raw())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == KNOWN[7, "noise", 12_345, 31]


class TestIndependence:
    def test_of_the_order_and_of_what_was_drawn_before(self):
        keys = list(itertools.product((0, 1), ("crop", "flip"), range(3), range(4)))
        forward = {key: generator(*key).random(3) for key in keys}
        generator(0, "crop").random(1000)
        backward = {key: generator(*key).random(3) for key in reversed(keys)}
        assert all(np.array_equal(forward[key], backward[key]) for key in keys)

    @pytest.mark.parametrize("ranks", [1, 2, 4])
    def test_of_how_a_batch_is_split_over_ranks(self, ranks):
        batch, share = 8, 8 // ranks
        whole = [KeyedRng(3, 17, sample)("augment").random(5) for sample in range(batch)]
        split = [
            KeyedRng(3, 17, rank * share + place)("augment").random(5)
            for rank in range(ranks)
            for place in range(share)
        ]
        assert np.array_equal(whole, split)

    def test_of_other_purposes_of_the_same_sample(self):
        """A new purpose in the code leaves the draws of the others alone."""
        alone = KeyedRng(0, 5, 2)("crop").random(4)
        draws = KeyedRng(0, 5, 2)
        draws("added later").random(100)
        assert np.array_equal(draws("crop").random(4), alone)

    def test_the_integer_type_does_not_matter(self):
        assert first_bits(np.int64(1), "crop", np.int32(2), np.uint8(3)) == first_bits(1, "crop", 2, 3)

    def test_the_global_state_is_neither_read_nor_moved(self):
        np.random.seed(1)
        before = np.random.get_state()[1].copy()
        first = first_bits(0, "crop")
        np.random.seed(2)
        assert first_bits(0, "crop") == first
        np.random.seed(1)
        generator(0, "crop").random(10)
        assert np.array_equal(np.random.get_state()[1], before)


class TestDifference:
    def test_of_every_part_of_the_key(self):
        keys = list(itertools.product(range(5), ("crop", "flip", "noise"), range(10), range(10)))
        assert len({first_bits(*key) for key in keys}) == len(keys) == 1500

    def test_a_name_cannot_pose_as_a_number(self):
        alike = [(1, "a|2", 3, 4), (1, "a", 2, 3), (12, "a", 3, 4), (1, "2|a", 3, 4), (1, "a", 23, 4), (1, "a", 3, 42)]
        assert len({first_bits(*key) for key in alike}) == len(alike)

    def test_draws_are_those_of_their_key(self):
        assert KeyedRng(3, 4, 5)("crop").random() == generator(3, "crop", 4, 5).random()


class TestDistribution:
    """First numbers over neighbouring keys, which is what a run uses, and not numbers of one stream."""

    N = 8000

    def first_numbers(self, *, vary):
        keys = {"seed": 0, "step": 0, "sample": 0}
        return np.array([generator(purpose="crop", **{**keys, vary: i}).random() for i in range(self.N)])

    @pytest.mark.parametrize("vary", ["seed", "step", "sample"])
    def test_uniform_over_neighbouring_keys(self, vary):
        # Chi-square with 19 degrees of freedom: 43.8 is passed once in a thousand.
        counts, _ = np.histogram(self.first_numbers(vary=vary), bins=20, range=(0, 1))
        expected = self.N / 20
        assert ((counts - expected) ** 2 / expected).sum() < 43.8

    @pytest.mark.parametrize("vary", ["seed", "step", "sample"])
    def test_neighbours_are_uncorrelated(self, vary):
        # The correlation of N independent pairs has a standard deviation of 1 / sqrt(N).
        numbers = self.first_numbers(vary=vary)
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 4 / np.sqrt(self.N)


def test_a_reused_generator_draws_what_a_new_one_draws_whatever_was_drawn_before():
    keyed = KeyedRng(3, 5, 7)
    generator_of = keyed.reusing()
    for purpose in ("a", "b", "a"):
        reused, new = generator_of(purpose), keyed(purpose)
        # Odd numbers of 32-bit draws leave half a 64-bit number behind, which the next purpose must not see.
        assert (
            reused.integers(2**31, size=3, dtype=np.int32).tolist()
            == new.integers(2**31, size=3, dtype=np.int32).tolist()
        )
        assert reused.random(5).tolist() == new.random(5).tolist()
        assert reused.integers(2**31, dtype=np.int32) == new.integers(2**31, dtype=np.int32)
