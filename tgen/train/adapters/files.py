"""Writes an adapter's folder in peft's own format, and the card beside it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from safetensors.torch import save_file

from tgen.checkpoint.adapters.config import CONFIG
from tgen.checkpoint.adapters.opening import WEIGHTS
from tgen.checkpoint.adapters.tensors import DOWN, PREFIX, UP
from tgen.executors.torch.save import write_json
from tgen.files import write_atomically
from tgen.train.adapters.low_rank import Changes, Place
from tgen.train.adapters.settings import AdapterSettings
from tgen.train.settings import TrainSettings

CARD = """\
---
base_model: {quoted}
library_name: peft
tags: [lora, tgen]
---
# {name}

A LoRA adapter for {base}, trained with `tgen train`.

| | |
|---|---|
| rank, alpha | {rank}, {alpha:g} |
| parameters | {parameters:,} in {matrices} matrices |
| text | {documents:,} documents, {characters:,} characters; measured on {held_back:,} characters that were held back |
| trained on | {tokens:,} tokens in {steps:,} steps, {minutes:.0f} minutes |
| optimiser | peak learning rate {learning_rate:g}, warm-up, then a straight fall to zero |
| loss at the end | {train_loss:.3f} nats a token in training, {bits_per_byte:.3f} bits per byte on held-back text |

```
{command}
```
"""


def write_adapter(folder: Path, settings: AdapterSettings, changes: Changes, at: Sequence[Place], others: Iterable[str]) -> None:
    """Write adapter_config.json and adapter_model.safetensors, each completely or not at all, as peft names and shapes them.

    `others` are the names of matrices that the adapter does not change.
    """
    tensors = {}
    for name, change in changes.named():
        tensors[f"{PREFIX}{name}{DOWN[0]}"] = change.down.detach().cpu().contiguous()
        tensors[f"{PREFIX}{name}{UP[0]}"] = change.up.detach().cpu().contiguous()
    write_atomically(folder / WEIGHTS[0], partial(save_file, tensors, metadata={"format": "pt"}))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": settings.base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "target_modules": _targets(changes.names, others),
        "bias": "none",
        "fan_in_fan_out": at[0].turned,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
    }
    write_json(folder / CONFIG, config)


def adapter_card(
    name: str,
    adapter: AdapterSettings,
    settings: TrainSettings,
    changes: Changes,
    sizes: dict[str, int],
    last: dict[str, float],
    command: Sequence[str],
) -> str:
    """Markdown for the folder's README.md. `last` is the latest evaluation; `command` is an example of how to use the adapter."""
    return CARD.format(
        name=name,
        base=adapter.base,
        quoted=json.dumps(adapter.base, ensure_ascii=False),
        rank=adapter.rank,
        alpha=adapter.alpha,
        parameters=changes.size,
        matrices=len(changes.names),
        **sizes,
        tokens=int(last["tokens"]),
        steps=int(last["step"]),
        minutes=last["seconds"] / 60,
        learning_rate=settings.learning_rate,
        train_loss=last["train_loss"],
        bits_per_byte=last["bits_per_byte"],
        command=shlex.join(command),
    )


def _targets(names: Sequence[str], others: Iterable[str]) -> list[str]:
    """The last words of the modules' names, as people write them; the whole names if other modules' names end in the same words."""
    ends = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
    return list(names) if any(other.rpartition(".")[2] in ends for other in others) else ends
