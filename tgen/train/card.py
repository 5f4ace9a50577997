"""The model card that a training run writes into its folder. Knows no tensors."""

from __future__ import annotations

from typing import Any

from tgen.train.settings import TrainSettings

CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [llama, tgen]
---
# {name}

A small decoder-only model in Llama layout, trained with `tgen train`.

| | |
|---|---|
| layers, heads, width | {layers}, {heads}, {width} |
| vocabulary | {vocab} (byte-level BPE, learned from the training text) |
| context | {context} tokens |
| text | {documents} documents, {characters:,} characters, {share:.1%} of it held back |
| trained on | {tokens:,} tokens in {steps:,} steps of {batch} sequences, {minutes:.0f} minutes |
| optimiser | AdamW, peak learning rate {learning_rate:g}, warm-up and cosine, weight decay {weight_decay:g} |
| loss at the end | {train_loss:.3f} nats a token in training, {bits_per_byte:.3f} bits per byte on held-back text |

```
tgen generate --model {name} "Once upon a time"
```
"""


def model_card(name: str, settings: TrainSettings, config: dict[str, Any], data: dict[str, int], history: list[dict[str, float]]) -> str:
    """Markdown for the folder's README.md; `history` holds at least one evaluation."""
    last = history[-1]
    return CARD.format(
        name=name,
        layers=settings.layers,
        heads=config["num_attention_heads"],
        width=settings.width,
        vocab=config["vocab_size"],
        context=settings.context,
        documents=data["documents"],
        characters=data["characters"],
        share=settings.validation,
        tokens=int(last["tokens"]),
        steps=int(last["step"]),
        batch=settings.batch,
        minutes=last["seconds"] / 60,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        train_loss=last["train_loss"],
        bits_per_byte=last["bits_per_byte"],
    )
