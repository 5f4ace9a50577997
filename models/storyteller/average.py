"""Averages the weights of two models of one shape: `python -m models.storyteller.average FIRST SECOND --share 0.4 -o OUT`.

Models that were trained from one another lie in one valley of the loss; the middle between two of them is mostly lower than both, since
the noise of their last steps cancels out (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization").
"""

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"
BESIDE = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.storyteller.average", description=__doc__)
    parser.add_argument("first", type=Path, help="a model folder; all but the weights of the output is its")
    parser.add_argument("second", type=Path, help="another model folder of the same shape and vocabulary")
    parser.add_argument("--share", type=float, default=0.5, help="the share of the second's weights (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    first, second = load_file(options.first / WEIGHTS), load_file(options.second / WEIGHTS)
    if {name: one.shape for name, one in first.items()} != {name: one.shape for name, one in second.items()}:
        parser.error("the two models have not the same shape")
    average = {name: one.float().lerp(second[name].float(), options.share).to(one.dtype) for name, one in first.items()}
    options.output.mkdir(parents=True, exist_ok=True)
    for name in BESIDE:
        shutil.copyfile(options.first / name, options.output / name)
    save_file(average, options.output / WEIGHTS, metadata={"format": "pt"})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
