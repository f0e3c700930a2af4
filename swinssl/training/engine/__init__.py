"""The training loop and what a run consists of: checkpoints, optimiser, ranks, run folder."""
