"""The model card that a training run writes into its folder. Knows no tensors."""

from __future__ import annotations

from typing import Any

from tgen.train.settings import HEAD_DIM, TrainSettings

CARD = """\
---
library_name: transformers
pipeline_tag: {pipeline}
tags: [{model_type}, tgen]
---
# {name}

A small {kind} model in {layout} layout, trained with `tgen train`.

| | |
|---|---|
| layers, heads, width | {layers}, {heads}, {width} |
| vocabulary | {vocab} (byte-level BPE, learned from the training text) |
| context | {context} tokens |
| text | {text}, {characters:,} characters, {share:.1%} held back |
| trained on | {tokens:,} tokens in {steps:,} steps, {minutes:.0f} minutes |
| optimiser | AdamW, peak learning rate {learning_rate:g}, warm-up, then a straight fall to zero, weight decay {weight_decay:g} |
| loss at the end | {train_loss:.3f} nats a token in training, {bits_per_byte:.3f} bits per byte on held-back text |

```
{command}
```
"""


def model_card(name: str, settings: TrainSettings, config: dict[str, Any], sizes: dict[str, int], history: list[dict[str, float]]) -> str:
    """Markdown for the folder's README.md; `history` holds at least one evaluation."""
    pairs = config["model_type"] == "marian"
    last = history[-1]
    return CARD.format(
        name=name,
        model_type=config["model_type"],
        pipeline="translation" if pairs else "text-generation",
        kind="encoder-decoder" if pairs else "decoder-only",
        layout="Marian" if pairs else "Llama",
        layers=f"{settings.layers} + {settings.layers}" if pairs else settings.layers,
        heads=settings.width // HEAD_DIM,
        width=settings.width,
        vocab=config["vocab_size"],
        context=settings.context,
        text=f"{sizes['pairs']:,} sentence pairs" if pairs else f"{sizes['documents']:,} documents",
        characters=sizes["characters"],
        share=settings.validation,
        tokens=int(last["tokens"]),
        steps=int(last["step"]),
        minutes=last["seconds"] / 60,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        train_loss=last["train_loss"],
        bits_per_byte=last["bits_per_byte"],
        command=f'tgen translate --model {name} "Hello."' if pairs else f'tgen generate --model {name} "Once upon a time"',
    )
