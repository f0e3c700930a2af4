"""The one training loop: it runs a `Task` to the end of its schedule, exactly as if it had never been stopped."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from swinssl.core.devices import autocast, use_bf16
from swinssl.core.errors import Interrupted, UserError
from swinssl.core.machine import keep_freed_memory
from swinssl.core.rng import KeyedRng
from swinssl.core.terminal import Meter
from swinssl.training.engine.checkpoint import (
    Checkpoint,
    first_not_finite,
    load_checkpoint,
    newest_step,
    save_checkpoint,
)
from swinssl.training.engine.config import EngineConfig
from swinssl.training.engine.distribution import Ranks
from swinssl.training.engine.optimiser import (
    AS_THE_REST,
    EncoderLrSchedule,
    cosine_with_warm_up,
    make_optimiser,
    set_lr,
)
from swinssl.training.engine.prefetch import read_ahead
from swinssl.training.engine.progress import Length, Progress
from swinssl.training.engine.run_folder import RunFolder, StopRequests
from swinssl.training.engine.sharding import Shards, norms_over_ranks, own_part
from swinssl.training.engine.task import Task
from swinssl.training.engine.time_budget import TimeBudget

logger = logging.getLogger(__name__)

# Validation and checkpoints may each take half of this share of the time.
OVERHEAD_SHARE = 0.1
# A checkpoint at least this often, so that a kill costs little, unless writing one takes more than its share.
CHECKPOINT_SECONDS = 300.0


class Engine:
    """Runs one task in one folder.

    Owns device, precision, accumulation, clipping, schedule, ranks, checkpoints, resume, STOP file, signals, progress
    and log; knows nothing of segmentation or pretext tasks.

    Args:
        task: the learning problem.
        folder: the locked folder of the run.
        encoder_lr: of a pretrained encoder, which may learn later and more slowly than the rest.
        shard: spread the encoder's blocks over the ranks while training.
        activity: what the progress bar calls this run.
        run: JSON of the run's description; checkpoints carry it.
        after_epoch: called with the whole log after each epoch (it draws the progress picture).
    """

    def __init__(
        self,
        task: Task,
        folder: RunFolder,
        *,
        config: EngineConfig,
        learning_rate: float,
        length: Length,
        device: torch.device,
        ranks: Ranks,
        encoder_lr: EncoderLrSchedule = AS_THE_REST,
        shard: bool = False,
        activity: str = "training",
        run: dict[str, Any] | None = None,
        after_epoch: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> None:
        if task.batch_size < ranks.world:
            raise UserError(
                f"--batch-size {task.batch_size}: each of {ranks.world} processes needs a sample of every batch. Give "
                "a larger --batch-size, or fewer --gpus."
            )
        self.task, self.folder, self.config, self.length = task, folder, config, length
        self.learning_rate, self.device, self.ranks, self.after_epoch = learning_rate, device, ranks, after_epoch
        self.shard, self.activity = shard and ranks.world > 1, activity
        self.run_description = run or {}
        self.bf16 = use_bf16(device, config.precision)
        task.network.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.optimiser = make_optimiser(
            task.network, learning_rate=learning_rate, weight_decay=config.weight_decay, encoder_lr=encoder_lr
        )
        self.shards = Shards([], self.optimiser, device=device)
        self.progress = Progress(total=length.expected)
        self.validate_every = max(1, math.ceil(task.validation_cost / (OVERHEAD_SHARE / 2 * length.steps_per_epoch)))
        self.budget = TimeBudget(
            length,
            validation_cost=task.validation_cost,
            closing_cost=task.closing_cost,
            validation_interval=self.validate_every * length.steps_per_epoch,
            agree=lambda value: ranks.broadcast([value])[0],
        )
        # Sums since the last line of the log.
        self.sums: dict[str, float] = defaultdict(float)
        self.began = self.saved_at = time.monotonic()
        self.save_seconds = 0.0

    def run(self) -> Progress:
        """Train to the end of the schedule, from the newest checkpoint if there is one.

        Raises:
            Interrupted: someone asked to stop; everything is saved.
            UserError: loss, gradients or weights are no longer finite, memory ran out, or the folder was taken away.
        """
        if self.device.type == "cpu":
            keep_freed_memory()
        self._resume()
        self.ranks.broadcast_weights(self.task.network)
        if self.shard:
            networks = [self.task.network, *self.task.averaged_networks]
            self.shards = Shards(networks, self.optimiser, device=self.device)
        # As if all sittings had been one.
        self.began = self.saved_at = time.monotonic()
        self.began -= self.progress.seconds
        first_step = self.progress.step
        samples = read_ahead(self.task.load, self._rngs, first_step=first_step, readers=self.config.readers)
        with (
            StopRequests(self.folder.stop_file) as requests,
            self._meter() as meter,
        ):
            try:
                while not self.progress.is_over:
                    started = time.monotonic()
                    loss = self._step(self._waited_for(samples))
                    self.sums["working_seconds"] += time.monotonic() - started
                    self.budget.correct(self.progress, self._elapsed)
                    meter.update(
                        self.progress.step, note=f"loss {loss:.3f}", total=self.budget.known_total(self.progress)
                    )
                    if self._epoch_ends():
                        self._end_epoch()
                    if self.ranks.broadcast([requests.asked])[0] and not self.progress.is_over:
                        self._save()
                        raise Interrupted(
                            f"saved after {self._steps_done()} in {self.folder.path}. Rerun the command to resume."
                        )
                    if self._save_is_due(CHECKPOINT_SECONDS):
                        self._save()
            finally:
                samples.close()  # type: ignore[attr-defined]
        if not self.progress.ended:
            if self.progress.validated_at != self.progress.step:  # a run that was made shorter ends between two epochs
                self._end_epoch()
            self.progress.ended = True
            self.progress.minutes = self.length.minutes
            self._save()
        self.shards.end()
        return self.progress

    # --- what the user sees

    def _meter(self) -> Meter:
        return Meter(
            self.activity,
            total=self.budget.known_total(self.progress),
            done=self.progress.step,
            seconds_allowed=self.budget.seconds_left(self.progress),
        )

    def _steps_done(self) -> str:
        total = self.budget.known_total(self.progress)
        return f"{self.progress.step} steps" if total is None else f"{self.progress.step} of {total} steps"

    # --- one step

    def _rngs(self, step: int) -> list[KeyedRng]:
        return [KeyedRng(self.config.seed, step, sample) for sample in self.ranks.shard(self.task.batch_size)]

    def _waited_for(self, samples: Iterator[list[Any]]) -> list[Any]:
        started = time.monotonic()
        loaded = next(samples)
        self.sums["waiting_seconds"] += time.monotonic() - started
        return loaded

    def _step(self, samples: Sequence[Any]) -> float:
        """One optimiser step; returns this rank's estimate of the batch's mean loss."""
        step, task = self.progress.step, self.task
        self.folder.began = True
        rngs = self._rngs(step)
        rate = self.learning_rate * cosine_with_warm_up(step, self.progress.total, warm_up=self.config.warm_up)
        set_lr(self.optimiser, learning_rate=rate, step=step)
        task.before_step(step, self.progress.total)
        task.network.train()
        total_loss = 0.0
        parts = min(self.config.accumulate, len(samples))
        for part in range(parts):
            chosen = slice(part * len(samples) // parts, (part + 1) * len(samples) // parts)
            inputs = task.views(samples[chosen], rngs[chosen], self.device)
            with autocast(self.device, bf16=self.bf16):
                result = task.step(inputs)
            # Each rank's share of the batch's mean, so that gradients add up over ranks and parts.
            loss = result.losses.sum() / task.batch_size
            loss.backward()
            total_loss += float(loss.detach())
            for name, value in result.log.items():
                self.sums[name] += value * len(result.losses) / len(samples)
        if not math.isfinite(total_loss):
            raise self._diverged(f"the loss became {total_loss}")
        self.ranks.sum_gradients(task.network)
        self._clip()
        self.shards.step(self.optimiser)
        task.after_step(step, self.progress.total)
        self.progress.step += 1
        mean_loss = total_loss * self.ranks.world
        self.sums["loss"] += mean_loss
        self.sums["steps"] += 1
        return mean_loss

    def _clip(self) -> None:
        """Bring the norm of the gradient, or of each tensor's as DINO has it, down to the largest allowed."""
        gradients = [p.grad for p in self.task.network.parameters() if p.grad is not None]
        groups = [[gradient] for gradient in gradients] if self.config.clip_per == "tensor" else [gradients]
        for group in filter(None, groups):  # none where all is still frozen
            norm = torch.linalg.vector_norm(torch.stack(norms_over_ranks(group)))
            if not torch.isfinite(norm):  # a step along it would leave weights that no later step can repair
                raise self._diverged(f"the gradient's norm became {float(norm)}")
            torch._foreach_mul_(
                [own_part(gradient) for gradient in group], torch.clamp(self.config.clip / (norm + 1e-6), max=1.0)
            )

    def _diverged(self, what: str) -> UserError:
        """The error of a run whose numbers are no longer finite, with remedies that work when they are typed."""
        lower = f"Lower --lr (it is {self.learning_rate:g}), or --clip (it is {self.config.clip:g})"
        other = f"{self.folder.folder_option} for another folder"
        saved = newest_step(self.folder.checkpoints)
        if saved is None:
            remedy = f"{lower}"
            remedy += ", or compute in fp32 (--precision fp32)." if self.bf16 else "."
        else:
            remedy = f"{lower}, with --restart to begin anew (this run is kept aside) or with {other}."
            if self.bf16:
                remedy += f" Or resume from the checkpoint of step {saved} in fp32 (--precision fp32)."
        kept = "" if saved is None else f" The checkpoint of step {saved} is not affected."
        return UserError(f"{self.folder.path}: {what} at step {self.progress.step}.{kept} {remedy}")

    def _check_finite(self) -> None:
        """Keep weights that are not finite out of checkpoints and results.

        Raises:
            UserError: the trained network, or what else a checkpoint has.
        """
        for weights in (self.task.network.state_dict(), self.task.extra_weights()):
            if (name := first_not_finite(weights)) is not None:
                raise self._diverged(f"{name} has values that are NaN or infinite")

    # --- time

    def _elapsed(self) -> float:
        """Seconds of training over all sittings."""
        return time.monotonic() - self.began

    def _epoch_ends(self) -> bool:
        return self.progress.step % self.length.steps_per_epoch == 0 or self.progress.is_over

    # --- epochs

    def _end_epoch(self) -> None:
        """Log, validate when it is due, keep the best, decide whether to stop early, save, draw."""
        if self.ranks.is_main:
            self.folder.check_ours()
        self._check_finite()
        epoch = math.ceil(self.progress.step / self.length.steps_per_epoch)
        steps = self.sums.pop("steps", 0.0) or 1.0
        waiting = self.sums.pop("waiting_seconds", 0.0)
        working = self.sums.pop("working_seconds", 0.0)
        entry: dict[str, Any] = {
            "step": self.progress.step,
            "epoch": epoch,
            "learning_rate": max(group["lr"] for group in self.optimiser.param_groups),
            **{name: value / steps for name, value in self.sums.items()},
        }
        self.sums.clear()
        if epoch % self.validate_every == 0 or self.progress.is_over:
            entry.update(self._validate(epoch))
            self.progress.validated_at = self.progress.step
        self.progress.ended = self.progress.is_over or self.progress.out_of_patience(self.length)
        if self.progress.ended:
            self.progress.minutes = self.length.minutes
        entry |= {"seconds": self._elapsed(), "waiting_seconds": waiting}
        if working > 0:
            entry["samples_per_second"] = steps * self.task.batch_size / working
        if self.ranks.is_main:
            self.folder.log(entry)
        if self.after_epoch is not None:
            with self.shards.whole():
                if self.ranks.is_main:
                    self.after_epoch(self.folder.read_log())
        # The end of a run is kept whatever that costs: else a run that was over would be trained to its end again.
        if self.progress.ended or self._save_is_due(0.0):
            self._save()

    def _validate(self, epoch: int) -> dict[str, float]:
        """Metrics under their names in the log; empty where there is nothing to validate on."""
        with self.shards.whole():
            return self._validate_whole(epoch)

    def _validate_whole(self, epoch: int) -> dict[str, float]:
        started = time.monotonic()
        with autocast(self.device, bf16=self.bf16):
            metrics = self.task.validate()
        progress = self.progress
        if not metrics:
            if self.progress.is_over and self.ranks.is_main:
                self.task.keep_best()
            return {}
        progress.validation_seconds += time.monotonic() - started
        progress.validations += 1
        # An equal score later in training comes from a longer average: it is kept.
        best = metrics["score"] >= progress.best_score
        progress.not_better = 0 if best else progress.not_better + 1
        if best:
            progress.best_score, progress.best_epoch = metrics["score"], epoch
            if self.ranks.is_main:
                self.task.keep_best()
        if self.ranks.is_main:
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            logger.info("epoch %d, step %d: %s%s", epoch, progress.step, numbers, " (best so far)" if best else "")
        return {"validation_" + name: value for name, value in metrics.items()}

    # --- checkpoints

    def _save_is_due(self, seconds: float) -> bool:
        """Whether the last checkpoint is `seconds` old, and writing another one stays within its share of the time."""
        due = time.monotonic() - self.saved_at > max(seconds, self.save_seconds / (OVERHEAD_SHARE / 2))
        # What is sharded is gathered from all, whose clocks differ.
        return bool(self.ranks.broadcast([due])[0]) if self.shard else due

    def _save(self) -> None:
        started = time.monotonic()
        if self.ranks.is_main:
            self.folder.check_ours()
        self._check_finite()
        self.progress.seconds = self._elapsed()
        optimiser = self.shards.optimiser_state(self.optimiser)
        with self.shards.whole():
            if self.ranks.is_main:
                weights = {f"network.{name}": tensor for name, tensor in self.task.network.state_dict().items()}
                weights |= {f"extra.{name}": tensor for name, tensor in self.task.extra_weights().items()}
                state = {"optimiser": optimiser, "progress": dict(vars(self.progress)), "sums": dict(self.sums)}
                save_checkpoint(
                    self.folder.checkpoints, Checkpoint(self.progress.step, weights, state, self.run_description)
                )
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - started

    def _resume(self) -> None:
        checkpoint = load_checkpoint(self.folder.checkpoints)
        if checkpoint is None:
            if self.ranks.is_main:
                self.folder.truncate_log(-1)
            return
        by_owner: dict[str, dict[str, torch.Tensor]] = {"network": {}, "extra": {}}
        for name, tensor in checkpoint.weights.items():
            owner, _, rest = name.partition(".")
            by_owner[owner][rest] = tensor
        self.task.network.load_state_dict(by_owner["network"])
        self.task.load_extra_weights(by_owner["extra"])
        self.optimiser.load_state_dict(checkpoint.state["optimiser"])
        self.progress = Progress.from_state(checkpoint.state["progress"])
        self.sums = defaultdict(float, checkpoint.state["sums"])
        had_ended, step = self.progress.ended, self.progress.step
        self.budget.resume(self.progress)
        if self.ranks.is_main:
            self.folder.truncate_log(step)
        if self.progress.is_over or not self.ranks.is_main:
            return
        total = self.budget.known_total(self.progress)
        logger.info("resuming after step %d%s", step, "" if total is None else f" of {total}")
        if had_ended:
            rate = self.learning_rate * cosine_with_warm_up(step, self.progress.total, warm_up=self.config.warm_up)
            logger.info(
                "this run had ended; it is extended on the schedule of %d steps, where the learning rate is %.2g now",
                self.progress.total,
                rate,
            )
