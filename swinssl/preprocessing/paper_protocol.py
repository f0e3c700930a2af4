"""The source paper's fine-tuning protocol (arXiv 2605.18491, sections 3.3.2 and 4), as `--recipe paper` plans it."""

from __future__ import annotations

SPACING = (2.0, 1.5, 1.5)
PATCH = (96, 96, 96)
BATCH, EPOCHS, PRESET, LEARNING_RATE = 3, 1000, "smit96", 2e-4
# The paper stops early and does not say when: a documented guess.
PATIENCE = 100
# CT for fine-tuning and for pretraining in HU; MR by the case's own percentiles.
CT_WINDOW, CT_PRETRAINING_WINDOW, MR_PERCENTILES = (-175.0, 250.0), (-500.0, 500.0), (5.0, 95.0)
