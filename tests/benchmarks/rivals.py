"""One measurement of another program, as JSON: `python tests/benchmarks/rivals.py llama.cpp FILE` or `transformers FOLDER`.

It imports nothing of tgen, so that any Python that has the package can run it. Speeds are in tokens per second: decode of one row and of
sixteen rows after 64 tokens, and prefill of 512 tokens. The first run of each kind warms up; the median of the others counts.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

CONTEXT, PREFILL, STEPS, ROWS, REPEATS = 64, 512, 32, 16, 3


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speeds(read: Callable[[int, int], object], step: Callable[[int], object], clear: Callable[[], object]) -> dict[str, float]:
    """`read(rows, tokens)` reads prompts, `step(rows)` appends a token to each row, `clear()` forgets all."""
    found: dict[str, list[float]] = {"prefill": [], "decode": [], "rows": []}
    for _ in range(REPEATS + 1):
        clear()
        found["prefill"].append(PREFILL / seconds(lambda: read(1, PREFILL)))
        for name, rows in (("decode", 1), ("rows", ROWS)):
            clear()
            read(rows, CONTEXT)
            found[name].append(rows / statistics.median(seconds(lambda rows=rows: step(rows)) for _ in range(STEPS)))  # type: ignore[misc]
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def llama_cpp(path: str, threads: int) -> dict[str, float]:
    """llama.cpp through its C functions, without the costs of the Python class around them."""
    import llama_cpp as c

    quiet = c.llama_log_callback(lambda *_: None)  # named, because the library keeps no reference
    c.llama_log_set(quiet, None)
    c.llama_backend_init()
    model = c.llama_model_load_from_file(path.encode(), c.llama_model_default_params())
    settings = c.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = 2 * ROWS * PREFILL, 1024, 512, ROWS
    settings.n_threads = settings.n_threads_batch = threads
    context = c.llama_init_from_model(model, settings)
    batch = c.llama_batch_init(ROWS * CONTEXT, 0, 1)
    lengths = [0] * ROWS

    def extend(rows: int, tokens: int) -> None:
        batch.n_tokens = rows * tokens
        for row in range(rows):
            for place in range(tokens):
                i = row * tokens + place
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = 5 + i, lengths[row] + place, 1
                batch.seq_id[i][0], batch.logits[i] = row, place == tokens - 1
            lengths[row] += tokens
        if c.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        c.llama_get_logits_ith(context, batch.n_tokens - 1)

    def clear() -> None:
        c.llama_memory_clear(c.llama_get_memory(context), True)
        lengths[:] = [0] * ROWS

    return speeds(extend, lambda rows: extend(rows, 1), clear)


def transformers(folder: str, threads: int) -> dict[str, float]:
    """Transformers in the number format of the folder."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model.eval()
    state: dict[str, Any] = {}

    def extend(rows: int, tokens: int) -> None:
        ids = torch.arange(5, 5 + rows * tokens).reshape(rows, tokens)
        with torch.inference_mode():
            state["cache"] = model(ids, past_key_values=state.get("cache"), use_cache=True, logits_to_keep=1).past_key_values

    return speeds(extend, lambda rows: extend(rows, 1), state.clear)


if __name__ == "__main__":
    program, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print(json.dumps(llama_cpp(path, threads) if program == "llama.cpp" else transformers(path, threads)))
