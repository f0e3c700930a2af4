"""Other packages' networks, imported when a test asks for them: that takes seconds, which quick tests do without."""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType

import pytest

NEEDS_MONAI = [pytest.mark.peer, pytest.mark.skipif(find_spec("monai") is None, reason="MONAI is not installed")]


def monai_swin_unetr() -> ModuleType:
    """MONAI's module with SwinUNETR and its parts."""
    from monai.networks.nets import swin_unetr

    return swin_unetr
