"""/v1/embeddings: vectors of texts, by the settings of a sentence-transformers folder, as `tgen embed` makes them."""

from __future__ import annotations

import asyncio
import base64
from functools import partial
from typing import Any

from tgen.errors import CapacityError, UsageError
from tgen.server.calls import Answer, Call
from tgen.tasks.embedding import Floats, normalized
from tgen.tasks.vectors import embedder
from tgen.wire.requests import UNHEEDED, take_texts

MOST_TEXTS = 2048
# Texts that are read in one pass; between passes, other requests have their turn.
TOGETHER = 32


async def embed(call: Call) -> Answer:
    """Answer a request for embeddings. Raises TgenError, HttpError."""
    model = await call.model()
    encoder, spec = model.encoding(), model.checkpoint.spec
    texts = take_texts(call.body, "input", MOST_TEXTS)
    form, dimensions = call.body.pop("encoding_format", None) or "float", call.body.pop("dimensions", None)
    if form not in ("float", "base64"):
        raise UsageError(f"encoding_format must be float or base64, not {form!r}")
    if dimensions is not None and (type(dimensions) is not int or not 1 <= dimensions <= spec.width):
        raise UsageError(f"dimensions must be a whole number between 1 and {spec.width}, not {dimensions!r}")
    if unknown := sorted(key for key, item in call.body.items() if key not in UNHEEDED and item is not None):
        raise UsageError(f"{unknown[0]!r} is not known", "a request has model, input, encoding_format and dimensions")
    maker = embedder(model.checkpoint, model.tokenizer)

    def ids_of(text: str | list[int]) -> list[int]:
        if not isinstance(text, str):
            if not all(0 <= token < spec.vocab for token in text):
                raise UsageError(f"input holds ids outside the model's vocabulary of {spec.vocab}")
            return text
        return maker.ids(text)

    rows = await asyncio.to_thread(lambda: [ids_of(text) for text in texts])
    for number, row in enumerate(rows):
        if len(row) > maker.longest:
            raise CapacityError(f"input {number} has {len(row)} tokens, the model reads {maker.longest}", "shorten it")
    vectors: list[Floats] = []
    for start in range(0, len(rows), TOGETHER):
        part = rows[start : start + TOGETHER]
        vectors += await asyncio.wrap_future(call.service.worker.call(partial(maker.vectors, encoder, part)))
    read = sum(map(len, rows))
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(_shortened(vector, dimensions), form)}
        for index, vector in enumerate(vectors)
    ]
    return {"object": "list", "data": data, "model": model.name, "usage": {"prompt_tokens": read, "total_tokens": read}}


def _shortened(vector: Floats, dimensions: int | None) -> Floats:
    """The first numbers of a vector, scaled to length 1 again, as some models are trained for (Matryoshka, arXiv:2205.13147)."""
    if dimensions is None or dimensions == len(vector):
        return vector
    return normalized(vector[:dimensions])


def _encoded(vector: Floats, form: str) -> Any:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if form == "base64" else [float(x) for x in vector]
