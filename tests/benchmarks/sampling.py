"""How long a step of the sampler takes: `python -m tests.benchmarks.sampling` prints milliseconds of CPU a row and step.

At a vocabulary of 152,064: first by the options, for likely tokens and for a flat distribution; then by kind of distribution with the
options of a chat model; then by length of text.
Without the native library, the figures are those of NumPy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tgen.arrays import Logits
from tgen.options import GenerationOptions
from tgen.sampling.rules import Rules
from tgen.sampling.sampler import Sampler
from tgen.sampling.wording import Wording
from tgen.values import split_bias

VOCAB, STEPS = 152_064, 100
CHAT: dict[str, Any] = {"temperature": 0.9, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.05, "no_repeat_ngram_size": 8}

OFF: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "temperature 0": {**OFF, "temperature": 0.0},
    "temperature 0, penalties": {**OFF, "temperature": 0.0, "repetition_penalty": 1.1, "frequency_penalty": 0.5},
    "temperature 1": OFF,
    "temperature 0.7": {**OFF, "temperature": 0.7},
    "the defaults": {},
    "top-k 40": {**OFF, "top_k": 40},
    "top-p 0.95": {**OFF, "top_p": 0.95},
    "min-p 0.05": {**OFF, "min_p": 0.05},
    "top-p 0.9, min-p 0.05": {**OFF, "top_p": 0.9, "min_p": 0.05},
    "logit biases, defaults": {"logit_bias": ("5=2", "77=-100")},
    "presence and frequency, defaults": {"presence_penalty": 0.5, "frequency_penalty": 0.5},
    "repetition, top-p 0.95": {**OFF, "repetition_penalty": 1.1, "top_p": 0.95},
    "chat, top-k 20": {**CHAT, "top_k": 20},
    "chat, no top-k": {**CHAT, "top_k": 0},
    "top-n-sigma 1": {**OFF, "top_n_sigma": 1.0},
    "typical-p 0.9": {**OFF, "typical_p": 0.9},
    "Mirostat": {**OFF, "mirostat_tau": 5.0},
    "XTC": {**OFF, "xtc_probability": 1.0},
    "DRY, repetition": {**OFF, "dry_multiplier": 0.8, "repetition_penalty": 1.1},
}


def peaked(random: np.random.Generator) -> Logits:
    """A bell of unlikely tokens and some likely ones, as a language model has them."""
    logits = random.normal(4, 2.5, VOCAB)
    logits[random.integers(0, VOCAB, 30)] += np.linspace(5, 16, 30)
    return logits.astype(np.float32)


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], Logits]] = {
    "peaked": peaked,
    "ties: peaked, rounded to halves": lambda random: np.round(2 * peaked(random)) / np.float32(2),
    "wide: no peak, deviation 3": lambda random: random.normal(0, 3, VOCAB).astype(np.float32),
    "flat: deviation 1": lambda random: random.normal(0, 1, VOCAB).astype(np.float32),
    "flat: deviation 0.001": lambda random: random.normal(0, 1e-3, VOCAB).astype(np.float32),
    "flat: three levels": lambda random: random.integers(0, 3, VOCAB).astype(np.float32),
    "flat: all equal": lambda _: np.zeros(VOCAB, dtype=np.float32),
}


def milliseconds(options: GenerationOptions, prompt: list[int], steps: list[Logits]) -> float:
    """The median time of a draw, in CPU time: others may share the machine."""
    rules = Rules(options.max_new_tokens, no_repeat_ngram_size=options.no_repeat_ngram_size)
    biases = [split_bias(text) for text in options.logit_bias]
    wording = Wording(np.array([token for token, _ in biases], np.intp), np.array([bias for _, bias in biases], np.float64))
    sampler, times = Sampler(options, 1, 0, prompt, rules, wording=wording), []
    for step in range(STEPS):
        logits = steps[step % len(steps)]
        begin = time.process_time()
        sampler.draw(logits)
        times.append(time.process_time() - begin)
    return 1000 * statistics.median(times[10:])


def main() -> None:
    """Print the three tables."""
    random = np.random.default_rng(0)
    np.ones(3_900_000)  # as a loaded model does, this leads the C library to keep freed memory for the next step
    prompt = random.integers(0, VOCAB, 4000).tolist()
    kinds = [[make(random) for _ in range(5)] for make in (peaked, DISTRIBUTIONS["flat: deviation 1"])]
    print(f"ms a step, vocabulary {VOCAB}\n{'':40}{'peaked':>10}{'flat':>10}")
    for name, options in SETTINGS.items():
        found = [milliseconds(GenerationOptions(**options), prompt, steps) for steps in kinds]
        print(f"{name:40}" + "".join(f"{one:>10.3f}" for one in found))
    print(f"\n{'the options of a chat':40}{'top-k 40':>10}{'top-k 0':>10}")
    for name, make in DISTRIBUTIONS.items():
        steps = [make(random) for _ in range(5)]
        found = [milliseconds(GenerationOptions(**CHAT, top_k=k), prompt, steps) for k in (40, 0)]
        print(f"{name:40}" + "".join(f"{one:>10.3f}" for one in found))
    print(f"\n{'ids before the step':40}{'top-k 40':>10}")
    steps = [peaked(random) for _ in range(5)]
    for length in (100, 10_000, 100_000):
        # A real text repeats few of the vocabulary's tokens: here 4,000 distinct ones.
        print(f"{length:<40}{milliseconds(GenerationOptions(**CHAT, top_k=40), random.integers(0, 4000, length).tolist(), steps):>10.3f}")


if __name__ == "__main__":
    main()
