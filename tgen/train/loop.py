"""The training loop: batches in, events out, a checkpoint now and then. Knows nothing of how progress is shown."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tgen.checkpoint.atomic import write_text
from tgen.checkpoint.save import save_weights, write_json
from tgen.events import Evaluated, Note, Trained
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.model.attention import Attention, plain_attend
from tgen.model.transformer import Transformer
from tgen.train.card import model_card
from tgen.train.corpus import training_batch, validation_batches
from tgen.train.machine import bfloat16_is_faster, can_compile, keep_freed_memory
from tgen.train.schedule import initialise, learning_rate, make_optimiser
from tgen.train.settings import HEAD_DIM
from tgen.train.vocabulary import bytes_per_token, end_token
from tgen.train.workspace import Workspace

Event = Trained | Evaluated | Note
LossFunction = Callable[[Tensor], Tensor]
GENERATION = {"do_sample": True, "temperature": 0.8, "top_k": 40, "top_p": 0.95, "max_new_tokens": 200}
QUICK_VALIDATION = 128


class Trainer:
    """One run in one folder. `model` can be used between two events, to write a sample for instance."""

    def __init__(self, workspace: Workspace, device: torch.device, *, compiled: bool | None = None, every: int = 250) -> None:
        self.workspace = workspace
        self.settings, self.corpus, self.tokenizer, self.data = workspace.open()
        self.device = device
        self.every = every
        self.compiled = can_compile() if compiled is None else compiled
        self.config = self.settings.model_config(self.tokenizer.get_vocab_size(), end_token(self.tokenizer))
        self.model = Transformer(find_family("llama").spec(Config(self.config)))
        initialise(self.model, self.settings.layers, self.settings.seed)
        self.model.to(device)
        for module in self.model.modules():
            if isinstance(module, Attention):
                # Plain matrix products: torch's fused CPU kernel has a slow backward pass, and a compiler fuses these.
                module.attend = plain_attend
        self.optimiser = make_optimiser(self.model, self.settings.weight_decay)
        self.step = 0
        self.seconds = 0.0
        self.train_loss = math.nan
        self.history: list[dict[str, float]] = []
        self.warm = False
        self._restore()

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
        dtype = torch.bfloat16 if bfloat16_is_faster(self.device) else torch.float32
        yield Note(f"{self._size()}, {str(dtype).removeprefix('torch.')} matrices, {'compiled' if self.compiled else 'not compiled'}")
        if self.compiled:
            yield Note("compiling the step, which takes a minute")
        self._loss = self._loss_function(dtype)
        step_tokens = self.settings.batch * self.settings.context
        speed = math.nan
        while self.share < 1 and not cancelled():
            started = time.monotonic()
            loss = self._train_step() if self.warm else self._first_step(dtype)
            took = time.monotonic() - started
            self.seconds += took
            self.train_loss = loss if math.isnan(self.train_loss) else 0.95 * self.train_loss + 0.05 * loss
            if self.warm:  # the first step compiles and says nothing about speed
                speed = step_tokens / took if math.isnan(speed) else 0.95 * speed + 0.05 * step_tokens / took
            self.warm = True
            yield self._progress(speed, step_tokens)
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
        """Mean cross-entropy of a batch of sequences [batch, context + 1], in nats, per position: [batch * context]."""

        def loss(sequences: Tensor) -> Tensor:
            with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                logits = self.model.logits(self.model(sequences[:, :-1]))
            return F.cross_entropy(logits.flatten(0, 1).float(), sequences[:, 1:].flatten(), reduction="none")

        return torch.compile(loss, dynamic=False) if self.compiled else loss

    def _train_step(self) -> float:
        settings = self.settings
        batch = training_batch(self.corpus.train, settings.context, settings.batch, settings.seed, self.step)
        rate = learning_rate(settings.learning_rate, self.share, settings.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self._loss(torch.from_numpy(batch).to(self.device)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {self.step}")
        return value

    @torch.no_grad()
    def _bits_per_byte(self, limit: int | None) -> float:
        """Total loss on held-back text over the bytes of that text; `limit` is how many sequences to look at, None is all."""
        sizes = bytes_per_token(self.tokenizer)
        nats, size = 0.0, 0
        settings = self.settings
        for batch in validation_batches(self.corpus.validation, settings.context, settings.batch, limit):
            rows = len(batch)
            # The compiled step has one shape: fill up the last batch, and do not count what was filled.
            padded = np.concatenate([batch, np.repeat(batch[:1], settings.batch - rows, axis=0)])
            losses = self._loss(torch.from_numpy(padded).to(self.device)).view(settings.batch, -1)[:rows]
            nats += float(losses.sum())
            size += int(sizes[batch[:, 1:]].sum())
        return nats / math.log(2) / size

    def _progress(self, speed: float, step_tokens: int) -> Trained:
        left = self.seconds / self.share * (1 - self.share) if self.share else math.nan
        return Trained(
            step=self.step,
            steps=self.settings.steps,
            share=self.share,
            tokens=self.step * step_tokens,
            loss=self.train_loss,
            learning_rate=self.optimiser.param_groups[0]["lr"],
            tokens_per_second=speed,
            seconds_left=left,
        )

    def _checkpoint(self, limit: int | None) -> Evaluated:
        event = Evaluated(
            step=self.step,
            tokens=self.step * self.settings.batch * self.settings.context,
            seconds=self.seconds,
            train_loss=self.train_loss,
            bits_per_byte=self._bits_per_byte(limit),
        )
        self.history = [row for row in self.history if row["step"] < self.step]
        self.history.append(asdict(event))
        self.workspace.save_state(
            {
                "step": self.step,
                "seconds": self.seconds,
                "history": self.history,
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            }
        )
        self.workspace.write_log(self.history)
        self._write_model()
        return event

    def _write_model(self) -> None:
        folder: Path = self.workspace.folder
        save_weights(folder, self.config, self.model, torch.bfloat16)
        ends = {key: self.config[key] for key in ("bos_token_id", "eos_token_id")}
        write_json(folder / "generation_config.json", {**GENERATION, **ends})
        write_text(folder / "README.md", model_card(folder.name, self.settings, self.config, self.data, self.history))

    def _restore(self) -> None:
        state = self.workspace.load_state()
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
            self.train_loss = self.history[-1]["train_loss"]

    def _size(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        heads = self.settings.width // HEAD_DIM
        return (
            f"{count:.1f} M parameters ({self.settings.layers} layers, {heads} heads, width {self.settings.width}), "
            f"{len(self.corpus.train) / 1e6:.1f} M tokens to learn from, {len(self.corpus.validation) / 1e6:.2f} M held back"
        )
