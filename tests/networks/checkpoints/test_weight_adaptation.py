"""Other channels and windows: the answer to equal channels stays, and a bias stays with its offset."""

from __future__ import annotations

import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from swinssl.networks.checkpoints.weight_adaptation import (
    BIAS_TABLE,
    FIRST_KERNEL,
    adapt,
    window_of,
    with_channels,
    with_window,
)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("there", "here"), [(1, 4), (4, 1), (4, 2), (2, 3)])
def test_equal_channels_get_the_same_answer(there, here):
    kernel = noise(5, there, 2, 2, 2)
    adapted = with_channels(kernel, here)
    assert adapted.shape == (5, here, 2, 2, 2)
    torch.testing.assert_close(adapted.sum(1), kernel.sum(1))
    assert all(torch.equal(adapted[:, 0], adapted[:, i]) for i in range(here))


def offsets_of(window):
    """Row of the table for each offset (z, y, x)."""
    n, edge = window - 1, 2 * window - 1
    triples = [(z, y, x) for z in range(-n, n + 1) for y in range(-n, n + 1) for x in range(-n, n + 1)]
    return {(z, y, x): ((z + n) * edge + y + n) * edge + x + n for z, y, x in triples}


@pytest.mark.parametrize(("there", "here"), [(7, 4), (4, 7), (4, 6)])
def test_a_table_is_interpolated_over_the_offsets(there, here):
    table = noise((2 * there - 1) ** 3, 3)
    resized, rows = with_window(table, here), offsets_of(here)
    assert resized.shape == ((2 * here - 1) ** 3, 3)
    # The same by another implementation, with each axis from -1 to 1.
    axis = torch.linspace(-1, 1, 2 * there - 1).double().numpy()
    volume = table.double().numpy().reshape(*(len(axis),) * 3, 3)
    wanted = [[offset / (here - 1) for offset in triple] for triple in rows]
    expected = torch.from_numpy(RegularGridInterpolator((axis,) * 3, volume)(wanted)).float()
    torch.testing.assert_close(resized[list(rows.values())], expected, rtol=1e-4, atol=1e-5)


def test_the_bias_at_offset_zero_and_at_the_corners_is_kept():
    table = noise(13**3, 2)
    resized, there, here = with_window(table, 4), offsets_of(7), offsets_of(4)
    assert torch.allclose(resized[here[0, 0, 0]], table[there[0, 0, 0]], atol=1e-6)
    assert torch.allclose(resized[here[3, -3, 3]], table[there[6, -6, 6]], atol=1e-6)
    assert with_window(table, 7) is table


@pytest.mark.parametrize(("rows", "window"), [(343, 4), (13**3, 7), (1, 1), (169, 0), (64, 0)])
def test_a_window_is_told_from_a_table_s_rows(rows, window):
    assert window_of(torch.zeros(rows, 3)) == window
    assert window_of(torch.zeros(rows)) == 0


def test_adapting_changes_what_must_change_and_names_it():
    table = f"stages.0.blocks.0.{BIAS_TABLE}"
    tensors = {FIRST_KERNEL: noise(4, 1, 2, 2, 2), table: noise(343, 2), "norms.0.weight": noise(4)}
    same, changed = adapt(tensors, in_channels=1, window=4)
    assert changed == () and all(same[name] is tensor for name, tensor in tensors.items())
    other, changed = adapt(tensors, in_channels=2, window=3)
    assert changed == (FIRST_KERNEL, table)
    assert other["norms.0.weight"] is tensors["norms.0.weight"] and other[table].shape == (125, 2)
