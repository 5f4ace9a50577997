"""Compares lm-eval's log-likelihoods, asked of `tgen serve`, with those of `tgen score`: `python -m tests.server.against_lm_eval`.

`--python` names a Python with `lm_eval[api]` (PyPI) and transformers, if this one has not got them.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.server.load import Server
from tgen.checkpoint.resolve import resolve
from tgen.text.tokenizer import Tokenizer

MOST_DIFFERENCE = 1e-4
WORDS = "Once upon a time there was an old fox who lived in a dark wood and every day he went out to look for geese".split()
PAIRS = [(" ".join(WORDS[:place]), " " + " ".join(WORDS[place : place + 1 + place % 4])) for place in range(1, len(WORDS))]
PAIRS += [("She said: ", "“Il était une fois”, 日本 🎉."), ("A\n\n", "tale\n")]
TASK = """\
task: pairs
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{context}}}}"
doc_to_target: "{{{{continuation}}}}"
target_delimiter: ""
metric_list: [{{metric: perplexity, aggregation: perplexity, higher_is_better: false}}]
"""
# Ids or texts, one request or several at a time, one or several prompts in each.
WAYS = (
    ("tokenized_requests=True", 1),
    ("tokenized_requests=False", 1),
    ("num_concurrent=4,tokenized_requests=True", 1),
    ("tokenized_requests=True", 5),
)


def asked(python: str, port: int, model: Path, way: str, batch: int) -> list[float]:
    """The log-likelihoods that lm-eval finds when it asks in this way, so many prompts at once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = [{"context": context, "continuation": continuation} for context, continuation in PAIRS]
        (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
        (folder / "pairs.yaml").write_text(TASK.format(file=folder / "pairs.jsonl"))
        address = f"base_url=http://127.0.0.1:{port}/v1/completions,model={model.name}"
        # A tokenizer that begins each text with a token of its own does so here, too.
        arguments = f"{address},tokenizer={model},tokenizer_backend=huggingface,add_bos_token=True,{way}"
        command = [python, "-m", "lm_eval", "--model", "local-completions", "--model_args", arguments, "--tasks", "pairs"]
        output = ["--include_path", name, "--output_path", str(folder / "out"), "--log_samples", "--batch_size", str(batch)]
        there = {"PATH": "/usr/bin:/bin", "HOME": name, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([*command, *output], env=there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(done.stdout)
        [samples] = (folder / "out").rglob("samples_*.jsonl")
        records = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda record: record["doc_id"])
        return [float(record["resps"][0][0][0]) for record in records]


def scored(model: Path, context: str, continuation: str) -> float:
    """The log-likelihood of a continuation, as `tgen score` finds it."""
    tgen = str(Path(sys.executable).with_name("tgen"))
    text = context + continuation
    done = subprocess.run(
        [tgen, "score", "-m", str(model), "--tokens", "--json", "-"], input=f"{text}\n".encode(), capture_output=True, check=True
    )
    found = [token["logprob"] for token in json.loads(done.stdout)["token_logprobs"]]
    tokenizer = Tokenizer.load(model)
    # Like lm-eval, which counts white space at the end of a context as a part of the continuation.
    return math.fsum(found[len(tokenizer.encode(context.rstrip())) - 1 :])


def main() -> int:
    """Print the largest difference for each way to ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--model", type=Path, default=resolve("storyteller"))
    arguments = parser.parse_args()
    wanted = [scored(arguments.model, *pair) for pair in PAIRS]
    server, worst = Server(str(arguments.model)), 0.0
    try:
        begins = bool(Tokenizer.load(arguments.model).encode(""))
        for way, batch in WAYS:
            if begins and "tokenized_requests=False" in way:
                print(f"{way}: left out, because lm-eval does not count the token that the server begins a text with")
                continue
            found = asked(arguments.python, server.port, arguments.model, way, batch)
            difference = max(abs(one - other) for one, other in zip(found, wanted, strict=True))
            print(f"{way}, {batch} at once: {len(found)} from {min(found):.4f} to {max(found):.4f}, largest difference {difference:.2e}")
            worst = max(worst, difference)
    finally:
        server.process.terminate()
        server.process.wait(60)
    return int(not worst <= MOST_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main())
