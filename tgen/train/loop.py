"""The training loop: batches in, events out, a checkpoint now and then. Knows nothing of how progress is shown."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tgen.checkpoint.container import open_checkpoint
from tgen.events import Evaluated, Note, Trained
from tgen.executors.torch.attention import Attention, plain_attend
from tgen.executors.torch.load import load_model
from tgen.executors.torch.save import save_weights, write_json
from tgen.executors.torch.transformer import Transformer
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.files import write_text
from tgen.train.card import model_card
from tgen.train.machine import bfloat16_is_faster, can_compile, keep_freed_memory
from tgen.train.schedule import initialise, learning_rate, make_optimiser
from tgen.train.settings import HEAD_DIM
from tgen.train.task import Arrays
from tgen.train.workspace import Workspace

Event = Trained | Evaluated | Note
LossFunction = Callable[..., Tensor]
QUICK_VALIDATION = 128


class Trainer:
    """One run in one folder. `model` can be used between two events, to write a sample for instance."""

    def __init__(self, workspace: Workspace, device: torch.device, *, compiled: bool | None = None, every: int = 250) -> None:
        """`compiled` None compiles where that is possible and pays: a step that always has one shape, and a C++ compiler."""
        self.workspace = workspace
        self.run_data = workspace.open()
        self.settings, self.task, self.tokenizer = self.run_data.settings, self.run_data.task, self.run_data.tokenizer
        self.device = device
        self.every = every
        self.compiled = can_compile() and self.task.model_type == "llama" if compiled is None else compiled
        state = workspace.load_state()
        self.model = self._first_model(anew=state is None)
        for module in self.model.modules():
            if isinstance(module, Attention):
                # Plain matrix products: torch's fused CPU kernel has a slow backward pass, and a compiler fuses these.
                module.attend = plain_attend
        self.optimiser = make_optimiser(self.model, self.settings.weight_decay)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.train_loss = math.nan
        self.history: list[dict[str, float]] = []
        self.warm = False
        # Settled once a run: a resumed one shall go on as it began.
        self.dtype = torch.bfloat16 if bfloat16_is_faster(device) else torch.float32
        if state is not None:
            self._restore(state)

    def _first_model(self, anew: bool) -> Transformer:
        """The model before the first step: random, or that which the run goes on from."""
        if anew and self.workspace.first.is_dir():
            return self._base().requires_grad_().train()
        model = Transformer(find_family(self.task.model_type).spec(Config(self.task.config)))
        initialise(model, self.settings.layers, self.settings.seed)
        return model.to(self.device)

    def _base(self) -> Transformer:
        """The model the run goes on from."""
        return load_model(open_checkpoint(self.workspace.first), self.device, torch.float32)

    @property
    def share(self) -> float:
        """How much of the run is done, 0 to 1."""
        if self.settings.steps is not None:
            return min(1.0, self.step / self.settings.steps)
        return min(1.0, self.seconds / (60 * (self.settings.minutes or 1)))

    def run(self, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Train to the end, or until `cancelled`, which is asked once a step; the last thing done is always a checkpoint.

        Yields Trained after each step and Evaluated after each checkpoint. Raises FloatingPointError if the loss is not finite.
        """
        keep_freed_memory()
        dtype = self.dtype
        yield Note(f"{self._size()}, {str(dtype).removeprefix('torch.')} matrices, {'compiled' if self.compiled else 'not compiled'}")
        if self.compiled:
            yield Note("compiling the step, which takes a minute")
        self._loss = self._loss_function(dtype)
        speed = math.nan
        while self.share < 1 and not cancelled():
            started, before = time.monotonic(), self.tokens
            loss = self._train_step() if self.warm else self._first_step(dtype)
            took = time.monotonic() - started
            self.seconds += took
            self.train_loss = loss if math.isnan(self.train_loss) else 0.95 * self.train_loss + 0.05 * loss
            if self.warm:  # the first step compiles and says nothing about speed
                rate = (self.tokens - before) / took
                speed = rate if math.isnan(speed) else 0.95 * speed + 0.05 * rate
            self.warm = True
            yield self._progress(speed)
            if self.step % self.every == 0 and self.share < 1:
                yield self._checkpoint(QUICK_VALIDATION)
        yield self._checkpoint(None if self.share >= 1 else QUICK_VALIDATION)

    def _first_step(self, dtype: torch.dtype) -> float:
        """The step that compiles; where the compiler fails, training goes on without it."""
        try:
            return self._train_step()
        except FloatingPointError:
            raise
        except Exception:
            if not self.compiled:
                raise
            self.compiled = False
            self._loss = self._loss_function(dtype)
            return self._train_step()

    def _loss_function(self, dtype: torch.dtype) -> LossFunction:
        """The task's losses, its matrices multiplied in `dtype`."""

        def losses(*arrays: Tensor) -> Tensor:
            with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                return self.task.losses(self.model, *arrays)

        return torch.compile(losses, dynamic=False) if self.compiled else losses

    def _train_step(self) -> float:
        rate = learning_rate(self.settings.learning_rate, self.share, self.settings.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batches = self.settings.accumulate
        value = 0.0
        for number in range(self.step * batches, (self.step + 1) * batches):
            losses = self._loss(*self._tensors(self.task.batch(number)))
            count = int((losses.detach() != 0).sum())
            loss = losses.sum() / count / batches
            loss.backward()  # type: ignore[no-untyped-call]
            self.tokens += count
            value += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {self.step}")
        return value

    @torch.no_grad()
    def _bits_per_byte(self, limit: int | None) -> float:
        """Total loss on held-back text over the bytes of that text; `limit` is how many rows to look at, None is all."""
        nats, size = 0.0, 0
        for held in self.task.held_back(limit):
            nats += float(self._loss(*self._tensors(held.arrays))[: held.rows].sum())
            size += held.size
        return nats / math.log(2) / size

    def _tensors(self, arrays: Arrays) -> list[Tensor]:
        return [torch.from_numpy(array).to(self.device) for array in arrays]

    def _progress(self, speed: float) -> Trained:
        left = self.seconds / self.share * (1 - self.share) if self.share else math.nan
        return Trained(
            step=self.step,
            steps=self.settings.steps,
            share=self.share,
            tokens=self.tokens,
            loss=self.train_loss,
            learning_rate=self.optimiser.param_groups[0]["lr"],
            tokens_per_second=speed,
            seconds_left=left,
        )

    def _checkpoint(self, limit: int | None) -> Evaluated:
        with self._as_written():
            event = Evaluated(
                step=self.step,
                tokens=self.tokens,
                seconds=self.seconds,
                train_loss=self.train_loss,
                bits_per_byte=self._bits_per_byte(limit),
            )
            self.history = [row for row in self.history if row["step"] < self.step]
            self.history.append(asdict(event))
            self._write_model()
        self.workspace.save_state(
            {
                "dtype": self.dtype,
                "step": self.step,
                "tokens": self.tokens,
                "seconds": self.seconds,
                "history": self.history,
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            }
        )
        self.workspace.write_log(self.history)
        return event

    @contextmanager
    def _as_written(self) -> Iterator[None]:
        """The base mixed in while entered: an average of weights knows most of what either knows (WiSE-FT, arXiv:2109.01903)."""
        if not self.settings.base_share:
            yield
            return
        weights, base = self.model.state_dict(), self._base().state_dict()
        learned = {name: value.clone() for name, value in weights.items()}
        with torch.no_grad():
            for name, value in weights.items():
                value.lerp_(base[name], self.settings.base_share)
        yield
        self.model.load_state_dict(learned)

    def _write_model(self) -> None:
        folder: Path = self.workspace.folder
        save_weights(folder, self.task.config, self.model, torch.bfloat16)
        write_json(folder / "generation_config.json", self.task.generation)
        write_text(folder / "README.md", model_card(folder.name, self.settings, self.task.config, self.run_data.sizes, self.history))

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        self.tokens, self.train_loss = state["tokens"], self.history[-1]["train_loss"]
        self.dtype = state["dtype"]

    def _size(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        heads, layers = self.settings.width // HEAD_DIM, self.settings.layers
        return f"{count:.1f} M parameters ({layers} layers, {heads} heads, width {self.settings.width}), {self.task.describe()}"
