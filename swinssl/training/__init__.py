"""The training engine, patch sampling, augmentation, losses, schedules and checkpoints."""
