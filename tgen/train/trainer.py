"""The training loop: takes batches, yields events, and regularly writes a checkpoint."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tgen.checkpoint.container import open_checkpoint
from tgen.errors import CheckpointError, TgenError, shortened
from tgen.events import Evaluated, Note, Trained, TrainingEvent
from tgen.executors.torch.attention import Attention, plain_attend
from tgen.executors.torch.load import load_model
from tgen.executors.torch.save import save_weights, write_json
from tgen.executors.torch.transformer import Transformer
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.files import write_text
from tgen.train.objective import Arrays, predicted
from tgen.train.optimisers.optimiser import initialise, learning_rate, make_optimiser
from tgen.train.outputs import model_card
from tgen.train.sample import write_sample
from tgen.train.settings import HEAD_DIM
from tgen.train.speed import bfloat16_is_faster, can_compile, compiled, keep_freed_memory
from tgen.train.workspace import Workspace

LossFunction = Callable[..., Tensor]
QUICK_VALIDATION = 128


class Trainer:
    """One run in one folder."""

    def __init__(
        self, workspace: Workspace, device: torch.device, *, compiled: bool | None = None, every: int = 250, prompt: str | None = None
    ) -> None:
        """If `compiled` is None, the step is compiled if all steps have the same shape and there is a C++ compiler.

        A checkpoint follows after every `every` steps. Samples continue the `prompt`; None means the first words of the held-back text.
        """
        self.workspace = workspace
        self.run_data = workspace.open()
        self.settings, self.objective, self.tokenizer = self.run_data.settings, self.run_data.objective, self.run_data.tokenizer
        self.device = device
        self.every = every
        self.prompt = self.objective.opening() if prompt is None else prompt
        state = workspace.load_state()
        self.model = self._first_model(anew=state is None)
        for module in self.model.modules():
            if isinstance(module, Attention) and device.type == "cpu":
                # torch's fused CPU kernel has a slow backward pass; a compiler fuses plain matrix products itself.
                module.attend = plain_attend
        # A resumed run keeps the number format with which it began, whatever this machine would choose now.
        self.dtype: torch.dtype = state["dtype"] if state is not None else torch.bfloat16 if bfloat16_is_faster(device) else torch.float32
        self.optimiser = make_optimiser(self.learned, self.settings.weight_decay, self.dtype)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.train_loss = math.nan
        self.history: list[dict[str, float]] = []
        self.warm = False
        self._ahead: tuple[int, tuple[list[Tensor], int] | None] = (-1, None)
        if state is not None:
            self._restore(state)
        one_shape = self.objective.model_type == "llama"
        # A finished run only measures and samples once more, which is not worth a minute of compilation.
        self.compiled = self.share < 1 and (can_compile() and one_shape if compiled is None else compiled)

    def _first_model(self, anew: bool) -> Transformer:
        """The model before the first step: random, or the base model."""
        if anew and self.workspace.first.is_dir():
            return self._base().requires_grad_().train()
        model = Transformer(find_family(self.objective.model_type).spec(Config(self.objective.config)))
        initialise(model, self.settings.layers, self.settings.seed)
        return model.to(self.device)

    def _base(self) -> Transformer:
        """The base model with which the run began."""
        return load_model(open_checkpoint(self.workspace.first), self.device, torch.float32)

    @property
    def learned(self) -> nn.Module:
        """The module whose parameters learn, and which a checkpoint holds."""
        return self.model

    @property
    def share(self) -> float:
        """How much of the run is done, 0 to 1."""
        if self.settings.steps is not None:
            return min(1.0, self.step / self.settings.steps)
        return min(1.0, self.seconds / (60 * (self.settings.minutes or 1)))

    def usage(self, folder: str) -> list[str]:
        """The words of a command that uses the model in `folder`."""
        command = "translate" if self.model.spec.encoder else "generate"
        return ["tgen", command, "--model", folder, *(["--"] if self.prompt.startswith("-") else []), self.prompt]

    def run(self, cancelled: Callable[[], bool] = lambda: False) -> Iterator[TrainingEvent]:
        """Train to the end, or until `cancelled`, which is asked once a step; a run always ends with a checkpoint.

        Yields Trained after each step, then at a checkpoint Evaluated, and Sampled if there is a sample. Raises TgenError if the loss is
        not finite.
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
            loss = self._train_step() if self.warm else (yield from self._first_step(dtype))
            took = time.monotonic() - started
            self.seconds += took
            self.train_loss = loss if math.isnan(self.train_loss) else 0.95 * self.train_loss + 0.05 * loss
            if self.warm:  # the first step includes compilation, so it does not count for the speed
                rate = (self.tokens - before) / took
                speed = rate if math.isnan(speed) else 0.95 * speed + 0.05 * rate
            self.warm = True
            yield self._progress(speed)
            if self.step % self.every == 0 and self.share < 1:
                yield from self._checkpoint(QUICK_VALIDATION)
        yield from self._checkpoint(None if self.share >= 1 else QUICK_VALIDATION)

    def _first_step(self, dtype: torch.dtype) -> Generator[Note, None, float]:
        """Run the step that compiles, and return its loss. If it fails, training continues without the compiler, and a Note says why."""
        try:
            return self._train_step()
        except TgenError:
            raise
        except Exception as error:  # compilers fail in many ways
            if not self.compiled:
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            yield Note(f"warning: training goes on without the compiler, whose step failed: {shortened(reason)}")
        self.compiled = False
        self._loss = self._loss_function(dtype)
        self.optimiser.zero_grad()
        return self._train_step()

    def _loss_function(self, dtype: torch.dtype) -> LossFunction:
        """The function for the objective's losses, which multiplies matrices in `dtype`."""

        def losses(*arrays: Tensor) -> Tensor:
            with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                return self.objective.losses(self.model, *arrays)

        return compiled(losses) if self.compiled else losses

    def _train_step(self) -> float:
        rate = learning_rate(self.settings.learning_rate, self.share, self.settings.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batches = self.settings.accumulate
        parts = []
        for number in range(self.step * batches, (self.step + 1) * batches):
            tensors, count = self._batch(number)
            loss = self._loss(*tensors).sum() / count / batches
            loss.backward()  # type: ignore[no-untyped-call]
            parts.append(loss.detach())
            self.tokens += count
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        self._ahead = self.step * batches, self._ready(self.step * batches)
        # A GPU runs on its own until a number is read: only now does this process wait for it.
        value = float(torch.stack(parts).sum())
        if not math.isfinite(value):
            raise TgenError(f"training diverged: the loss is {value} at step {self.step}", "start again with a lower --learning-rate")
        return value

    def _batch(self, number: int) -> tuple[list[Tensor], int]:
        """The tensors of a batch and the number of tokens that it predicts, prepared while the device was busy with the batch before."""
        ahead, ready = self._ahead
        return ready if ahead == number and ready is not None else self._ready(number)

    def _ready(self, number: int) -> tuple[list[Tensor], int]:
        arrays = self.objective.batch(number)
        return self._tensors(arrays), predicted(arrays)

    @torch.no_grad()
    def _bits_per_byte(self, limit: int | None) -> float:
        """The total loss on held-back text divided by the bytes of that text, over `limit` rows or over all."""
        nats, size = 0.0, 0
        for held in self.objective.held_back(limit):
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

    def _checkpoint(self, limit: int | None) -> Iterator[TrainingEvent]:
        """Measure the model, store it, and only then sample, so that an error in the sample loses no step."""
        yield self._measure_and_store(limit)
        with self._as_written():
            sample = write_sample(self.model, self.tokenizer, self.objective, self.prompt, self.settings.seed)
        if sample is not None:
            yield sample

    def _measure_and_store(self, limit: int | None) -> Evaluated:
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
                "model": self.learned.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            }
        )
        self.workspace.write_log(self.history)
        return event

    @contextmanager
    def _as_written(self) -> Iterator[None]:
        """Within this context the model has the weights that the run writes. With `base_share`, they are averaged with the base model's.

        Such an average knows most of what either model knows (WiSE-FT, arXiv:2109.01903).
        """
        if not self.settings.base_share:
            yield
            return
        weights, base = self.model.state_dict(), self._base().state_dict()
        learned = {name: value.clone() for name, value in weights.items()}
        with torch.no_grad():
            for name, value in weights.items():
                value.lerp_(base[name], self.settings.base_share)
        try:
            yield
        finally:
            self.model.load_state_dict(learned)

    def _write_model(self) -> None:
        folder: Path = self.workspace.folder
        save_weights(folder, self.objective.config, self.model, torch.bfloat16)
        write_json(folder / "generation_config.json", self.objective.generation)
        card = model_card(
            folder.name, self.settings, self.objective.config, self.run_data.sizes, self.history, shlex.join(self.usage(folder.name))
        )
        write_text(folder / "README.md", card)

    def _restore(self, state: dict[str, Any]) -> None:
        self.learned.load_state_dict(state["model"])
        try:
            self.optimiser.load_state_dict(state["optimiser"])
        except ValueError as error:
            hint = "start a new run; --base continues with the model that this run has written"
            raise CheckpointError(f"the run in {self.workspace.folder} was trained by other optimisers: {error}", hint) from error
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        self.tokens, self.train_loss = state["tokens"], self.history[-1]["train_loss"]

    def _size(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        heads, layers = self.settings.width // HEAD_DIM, self.settings.layers
        return f"{count:.1f} M parameters ({layers} layers, {heads} heads, width {self.settings.width}), {self.objective.describe()}"
