"""From minutes to steps: the schedule of a run with a time limit, corrected as the speed of the run is measured."""

from __future__ import annotations

from collections.abc import Callable

from swinssl.training.engine.progress import Length, Progress

# Number of steps to time before the length of a run is set from its speed; the first steps are slower and do not count.
STEPS_TO_MEASURE, SLOW_STEPS = 12, 2
# Interval of later corrections: speed changes with what else the machine does.
STEPS_TO_CORRECT = 10


class TimeBudget:
    """Sets the number of steps of a run so that it ends within its minutes; without a limit it changes nothing.

    Args:
        length: requested by the user.
        validation_cost: cost of one validation, in training steps.
        closing_cost: cost of what follows the run, in training steps.
        validation_interval: steps between two validations.
        agree: replaces a rank's own number by that of the main rank, so that all ranks make the same steps.
    """

    def __init__(
        self,
        length: Length,
        *,
        validation_cost: float,
        closing_cost: float,
        validation_interval: int,
        agree: Callable[[float], float],
    ) -> None:
        self.length, self.validation_cost, self.closing_cost = length, validation_cost, closing_cost
        self.validation_interval, self.agree = validation_interval, agree
        # Under a time limit the number of steps is an estimate until speed is measured, and no estimate is shown.
        self.total_is_known = length.minutes is None
        # Step and training seconds from which speed is measured.
        self._measured_from: tuple[int, float] | None = None
        self._slow_steps_left = SLOW_STEPS

    def known_total(self, progress: Progress) -> int | None:
        """Number of steps of the run; None while it is an estimate."""
        return progress.total if self.total_is_known else None

    def seconds_left(self, progress: Progress) -> float | None:
        """Time left at the start of a sitting; None without a limit."""
        return None if self.length.minutes is None else self.length.minutes * 60 - progress.seconds

    def resume(self, progress: Progress) -> None:
        """Apply the length requested now to the progress of a checkpoint; a finished run continues if it is longer."""
        length, had_ended, progress.ended = self.length, progress.ended, False
        if length.minutes is None:
            progress.total = length.expected
        elif had_ended:
            ended_under = progress.minutes if progress.minutes is not None else progress.seconds / 60
            progress.total = progress.step
            if length.minutes > ended_under:
                per_step = max((progress.seconds - progress.validation_seconds) / max(progress.step, 1), 1e-9)
                wanted = self._affordable(progress, length.minutes, per_step=per_step, elapsed=progress.seconds)
                progress.total = max(wanted, progress.step)
        progress.ended = had_ended and (progress.step >= progress.total or progress.out_of_patience(length))

    def correct(self, progress: Progress, elapsed: Callable[[], float]) -> None:
        """After a step: correct the number of steps from the measured speed.

        Args:
            elapsed: seconds of the run so far, over all sittings.
        """
        if self.length.minutes is None:
            return
        done = progress.step
        if self._measured_from is None:
            self._slow_steps_left -= 1
            if self._slow_steps_left == 0:
                self._measured_from = (done, elapsed() - progress.validation_seconds)
        first, since = self._measured_from or (0, 0.0)
        epoch_ends = done % self.length.steps_per_epoch == 0 or progress.is_over
        due = done - first == STEPS_TO_MEASURE or done % STEPS_TO_CORRECT == 0 or epoch_ends
        if (done - first < STEPS_TO_MEASURE and not progress.is_over) or not due:
            return
        per_step = (elapsed() - progress.validation_seconds - since) / (done - first)
        wanted = self._affordable(progress, self.length.minutes, per_step=per_step, elapsed=elapsed())
        progress.total = max(int(self.agree(wanted)), done)
        self.total_is_known = True

    def _affordable(self, progress: Progress, minutes: float, *, per_step: float, elapsed: float) -> int:
        """Steps of the whole run if it is to end within `minutes`, validation and closing included."""
        validation = self.validation_cost * per_step
        if progress.validations:
            validation = progress.validation_seconds / progress.validations
        # Without a timed validation, what follows the run is estimated from its cost in steps.
        closing = self.closing_cost * per_step
        if self.validation_cost > 0:
            closing = self.closing_cost / self.validation_cost * validation
        left = minutes * 60 - elapsed - validation - closing
        affordable = progress.step + max(0, int(left / (per_step + validation / self.validation_interval)))
        return affordable if self.length.steps is None else min(self.length.steps, affordable)
