"""Reads texts with a model instead of generating: log-probabilities of a given text, hidden states, logits at masks, attention maps.

It takes ids and returns NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from tgen.executors.torch.maps import Maps, recording
from tgen.executors.torch.placement import memory_errors
from tgen.executors.torch.transformer import Transformer

Floats = npt.NDArray[np.float32]

# Logits are computed for this many positions at a time: a vocabulary of 150,000 times a whole context would be gigabytes.
POSITIONS = 256


class Reader:
    """Reads ids with a loaded model."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.device = model.device

    @torch.inference_mode()
    def log_probabilities(self, ids: Sequence[int]) -> Floats:
        """The natural logarithm of each id's probability given the ids before it, [n - 1]: all ids but the first."""
        with memory_errors(f"reading {len(ids)} tokens"):
            tokens = torch.tensor(ids, device=self.device)
            hidden = self.model(tokens[None, :-1])[0]
            parts = []
            for start in range(0, len(hidden), POSITIONS):
                logits = self.model.logits(hidden[start : start + POSITIONS]).float()
                wanted = tokens[start + 1 : start + 1 + len(logits), None]
                parts.append(logits.log_softmax(-1).gather(1, wanted)[:, 0])
        return torch.cat(parts).cpu().numpy()

    @torch.inference_mode()
    def encode(self, rows: Sequence[Sequence[int]]) -> list[Floats]:
        """Hidden states of the encoder for each row of ids, [n, width]; all rows are read in one pass."""
        texts = [row for row in rows if row]
        with memory_errors(f"reading {sum(map(len, texts))} tokens"):
            found = iter(self.model.encode_texts(texts) if texts else [])
            none = torch.zeros(0, self.model.spec.width)
            return [(next(found) if row else none).float().cpu().numpy() for row in rows]

    @torch.inference_mode()
    def logits_at(self, ids: Sequence[int], places: Sequence[int]) -> Floats:
        """Logits at some positions of a text that an encoder reads, [places, vocab]."""
        with memory_errors(f"reading {len(ids)} tokens"):
            hidden = self.model.encode(torch.tensor([ids], device=self.device))[0]
            return self.model.logits(hidden[list(places)]).float().cpu().numpy()

    @torch.inference_mode()
    def attention(self, ids: Sequence[int], source: Sequence[int] | None = None) -> Maps:
        """Attention maps of one text, or of an answer to a source: per kind and layer, [heads, queries, keys]."""
        tokens = torch.tensor([ids], device=self.device)
        with recording(self.model) as recorder, memory_errors(f"recording attention over {len(ids)} tokens"):
            if source is None:
                self.model(tokens)
            else:
                self.model(tokens, source=self.model.read_source(torch.tensor([source], device=self.device)))
        return {kind: [layer[0] for layer in layers] for kind, layers in recorder.maps.items()}
