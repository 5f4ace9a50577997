"""Models that read instead of write: log-probabilities of a given text, hidden states, logits at masks, attention maps.

Ids and NumPy arrays outside, tensors inside. Knows no text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from tgen.executors.torch.maps import Maps, recording
from tgen.executors.torch.placement import memory_errors
from tgen.executors.torch.session import left_padded
from tgen.executors.torch.transformer import Transformer

Floats = npt.NDArray[np.float32]

# Logits of this many positions at a time: a vocabulary of 150,000 times a whole context would be gigabytes.
POSITIONS = 256


class Reader:
    """A model that was loaded to read."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.device = model.device

    @torch.inference_mode()
    def log_probabilities(self, ids: Sequence[int]) -> Floats:
        """What the model thought of each id but the first, given those before it: natural logarithms, [n - 1]."""
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
        """Hidden states of the encoder for each row of ids, [n, width]; the rows share one padded batch, but for those without ids."""
        there = [row for row in rows if row]
        hidden = np.zeros((0, 0, self.model.spec.width), dtype=np.float32)
        if there:
            with memory_errors(f"reading {sum(map(len, there))} tokens"):
                hidden = self.model.encode(*left_padded(there, [0] * len(there), self.device)).float().cpu().numpy()
        found = iter(hidden)
        return [next(found)[-len(row) :] if row else np.zeros((0, self.model.spec.width), dtype=np.float32) for row in rows]

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
