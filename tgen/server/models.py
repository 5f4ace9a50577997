"""The models of a server. Their folders are checked at the start; weights are loaded for a request, and closed to make room for others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.checkpoint.resolve import resolve
from tgen.checkpoint.safetensors import weight_bytes
from tgen.engine.opening import open_generator
from tgen.errors import MemoryLimitError, UsageError
from tgen.executors.formats import available_memory
from tgen.executors.native.forecast import forecast
from tgen.executors.open import open_executor, open_model, require_torch, why_torch
from tgen.executors.session import LoadedModel
from tgen.options import GuessOptions, RunOptions
from tgen.server.problems import HttpError
from tgen.server.wakeups import giving_way
from tgen.server.worker import Engine
from tgen.spec.shapes import parameter_count
from tgen.text.chat import ChatTemplate, find_template
from tgen.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tgen.executors.torch.transformer import Transformer

# Without --memory, weights may take this share of the memory that is free at the start.
WEIGHTS_SHARE = 0.7


@dataclass(eq=False)
class Served:
    """A model under the name that requests give; `engine` and `model` are None while its weights are not loaded.

    A command may also name the model by its `folder`. A model with --adapter has no `folder`, because a command that names the folder wants
    the model without the adapter.
    """

    name: str
    folder: Path | None
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    bytes: int  # of its weights
    engine: Engine | None = None
    model: LoadedModel | None = None
    modules: Transformer | None = None  # for attention maps, if they were asked for
    users: int = 0
    used: float = 0.0
    since: int = field(default_factory=lambda: int(time.time()))

    @property
    def loaded(self) -> bool:
        """Whether its weights are in memory."""
        return self.model is not None or self.engine is not None

    @cached_property
    def template(self) -> ChatTemplate:
        """Its chat template. Raises UsageError if it has none, CheckpointError."""
        found = find_template(self.checkpoint.texts)
        if found is None:
            message = f"{self.name} has no chat template: it continues texts and was not made for conversation"
            raise UsageError(message, "use /v1/completions, or serve a chat model")
        return found

    def writing(self) -> Engine:
        """Its engine. Raises UsageError for a model that generates no text."""
        if self.engine is None:
            raise UsageError(f"{self.name} is encoder-only, so it generates no text", "use /v1/embeddings")
        return self.engine

    def encoding(self) -> LoadedModel:
        """The loaded model, which makes vectors of texts. Raises UsageError for a model that makes none."""
        if self.engine is not None and self.checkpoint.spec.encoder is None:
            return cast(LoadedModel, self.engine.generator.executor)  # open_generator gives it one
        if self.model is None:
            message = f"/v1/embeddings needs a model that is encoder-only or decoder-only; {self.name} is {self.checkpoint.spec.kind}"
            raise UsageError(message, "serve an encoder, such as BERT, with another -m")
        return self.model

    def held(self) -> int:
        """The bytes of its weights that are in memory."""
        return self.bytes * self.loaded + self.module_bytes * (self.modules is not None)

    @property
    def module_bytes(self) -> int:
        """The bytes of its weights as torch modules."""
        return 4 * parameter_count(self.checkpoint.spec)

    def close(self) -> None:
        """Free its weights."""
        self.engine = self.model = self.modules = None


class Models:
    """All models of a server, the first of which answers requests that name none."""

    def __init__(self, names: Sequence[str], run: RunOptions, guessing: GuessOptions, rows: int, most_bytes: int | None) -> None:
        """Check all folders. Weights take at most `most_bytes` together. Raises TgenError."""
        free = available_memory()
        self._most = most_bytes or (float("inf") if free is None else WEIGHTS_SHARE * free)
        self._run = run
        self._guessing = guessing
        self.rows = rows
        self._loading = asyncio.Lock()
        self._freed = asyncio.Event()
        self._crowded = False  # whether a model waits until others are unused
        self.all = [_opened(name, run) for name in names]
        twice = [model.name for model in self.all if [one.name for one in self.all].count(model.name) > 1]
        if twice:
            raise UsageError(f"two models have the name {twice[0]}", "give each model once; names are those of --model or of the folders")
        for model in self.all:
            if most_bytes is not None and model.bytes > most_bytes:
                raise MemoryLimitError(f"{model.name} has {model.bytes:,} bytes of weights, --memory allows {most_bytes:,}", "allow more")

    def find(self, name: object) -> Served:
        """The model of a name. Raises HttpError for a name that the server does not have."""
        if name is None:
            return self.all[0]
        for model in self.all:
            if name == model.name or (model.folder is not None and name in (str(model.folder), str(model.folder.resolve()))):
                return model
        names = ", ".join(model.name for model in self.all)
        raise HttpError(404, f"this server has no model {name!r}; it has {names}", code="model_not_found", param="model")

    @asynccontextmanager
    async def use(self, model: Served) -> AsyncIterator[Served]:
        """Load a model if need be, and keep it while the context lasts. Models used longest ago are closed to make room.

        While a model waits for room, later requests for other models wait, too, because they might keep the memory for ever.
        """
        if model.loaded and not self._crowded:
            model.users += 1
        else:
            async with self._loading:
                while not model.loaded:
                    if self._make_room(model):
                        await _whole(asyncio.to_thread(self.load, model))
                    else:
                        await self._until_freed()
                model.users += 1
        try:
            yield model
        finally:
            model.users -= 1
            model.used = time.monotonic()
            self._freed.set()

    async def _until_freed(self) -> None:
        """Wait until a request has ended."""
        self._crowded = True
        self._freed.clear()
        try:
            await self._freed.wait()
        finally:
            self._crowded = False

    def _make_room(self, model: Served) -> bool:
        """Close unused models until this one fits. Returns whether it does; a model that is alone always fits."""
        while True:
            loaded = [one for one in self.all if one.loaded]
            if not loaded or sum(one.held() for one in loaded) + model.bytes <= self._most:
                return True
            unused = [one for one in loaded if not one.users]
            if not unused:
                return False
            oldest = min(unused, key=lambda one: one.used)
            oldest.close()

    def load(self, model: Served) -> None:
        """Load a model's weights. Raises TgenError."""
        with giving_way():  # the threads that will run it
            if model.checkpoint.spec.kind == "encoder-only":
                model.model = open_executor(model.checkpoint, self._run)
            else:
                model.engine = Engine(open_generator(model.checkpoint, self._run, self._guessing), self.rows)

    async def recordable(self, model: Served) -> Transformer:
        """The torch modules of a model that is in use, whose attention can be recorded. They stay until the model is closed.

        Raises UnsupportedError without torch, MemoryLimitError, TgenError.
        """
        require_torch("an attention map")
        async with self._loading:
            if model.modules is None:
                await _whole(asyncio.to_thread(self._load_modules, model))
        assert model.modules is not None
        return model.modules

    def _load_modules(self, model: Served) -> None:
        from tgen.executors.torch.session import TorchExecutor

        loaded = model.model if model.engine is None else model.engine.generator.executor
        if isinstance(loaded, TorchExecutor):
            model.modules = loaded.model
            return
        held = sum(one.held() for one in self.all)
        if held + model.module_bytes > self._most:
            needed = f"attention maps of {model.name} need {model.module_bytes:,} bytes of weights beside {held:,}"
            raise MemoryLimitError(f"{needed}, and {self._most:,.0f} are allowed", "allow more with --memory, or serve fewer models")
        model.modules = open_model(model.checkpoint, self._run)


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Wait until some work has ended, even if the request that began it is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _opened(name: str, run: RunOptions) -> Served:
    folder = resolve(name)
    checkpoint = open_checkpoint(folder, adapters=run.adapter)
    tokenizer = Tokenizer.load(checkpoint.texts, checkpoint.spec.vocab)
    native = why_torch(checkpoint.spec, run) is None
    size = forecast(checkpoint, run).weight_bytes if native else weight_bytes(checkpoint.stored)
    return Served(checkpoint.name if Path(name).exists() else name, None if run.adapter else folder, checkpoint, tokenizer, size)
