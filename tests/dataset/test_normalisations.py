"""A new normalisation is one function and one row: everything else derives from the table."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from swinssl.core.errors import UserError
from swinssl.dataset.normalisations import NORMALISATIONS, Normalisation, normalisation_forms
from swinssl.planning.intensity import asked_intensity, describe, intensity_form
from swinssl.preprocessing.normalise import normalise
from swinssl.preprocessing.plans import Intensity


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dummy: values to the power of LOW, times HIGH."""
    row = Normalisation(
        lambda channel, low, high, inside: lambda plane: high * plane**low,
        "power {low:g} times {high:g}",
        bounds="units",
        channel_names={"powered": (2, 10)},
    )
    monkeypatch.setitem(NORMALISATIONS, "power", row)


@pytest.mark.usefixtures("power")
def test_a_new_row_is_typed_checked_described_stored_and_applied() -> None:
    assert "power:LOW:HIGH" in normalisation_forms() and "power:LOW:HIGH" in intensity_form()
    intensity = asked_intensity("power:2:3", "power:2:3")
    assert describe(intensity) == "power 2 times 3"
    assert Intensity.model_validate_json(intensity.model_dump_json()) == intensity
    (channel,) = normalise(np.full((1, 1, 2, 2), 4.0), [intensity])
    assert (channel[:] == 48).all()
    with pytest.raises(UserError, match="power:3:2 needs two numbers, the lower first"):
        asked_intensity("power:3:2", "power:3:2")


def test_a_name_outside_the_table_is_refused_with_those_inside() -> None:
    with pytest.raises(ValidationError, match="unknown normalisation 'power'; known are window, percentile, zscore"):
        Intensity(scheme="power", low=1, high=2)
    with pytest.raises(UserError, match=r"'power:1:2' is not known\. Give auto, window:LOW:HIGH, "):
        asked_intensity("power:1:2", "power:1:2")
