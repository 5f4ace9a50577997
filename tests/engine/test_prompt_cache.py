"""A prompt's cache in a file: the same text with less reading, never for another model, and never a broken file."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.conftest import GOLDEN
from tests.engine.scripted import Played
from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.engine.opening import open_generator
from tgen.engine.prefix import Prefix
from tgen.engine.prompt_cache import PromptCache, _checksum, fingerprint
from tgen.errors import UsageError
from tgen.options import Dtype, RunOptions

PROMPT = "The old king had three sons"
Copy = Callable[[str], Path]


def played(checkpoint: Checkpoint, path: Path, prompt: str, dtype: Dtype = "float32", samples: int = 1) -> tuple[Played, str | None]:
    """A run with the file, and the note about the file."""
    torch.set_num_threads(1)
    generator = open_generator(checkpoint, RunOptions("cpu", dtype))
    cache, prefix = PromptCache(path, checkpoint), Prefix(generator.executor)
    said = cache.load(prefix)
    resolved = generator.resolve({"temperature": 0, "max_new_tokens": 8, "samples": samples})
    found = Played(list(generator.run(prompt, resolved, prefix=prefix)))
    assert cache.save(prefix, found.started.prompt_tokens) is None
    return found, said


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama2", "gpt2", "gemma3"])
def test_text_is_that_without_a_cache(tmp_path: Path, name: str, dtype: Dtype) -> None:
    checkpoint = open_checkpoint(GOLDEN / name)
    path = tmp_path / "cache"
    first, said = played(checkpoint, path, PROMPT, dtype)
    assert (first.started.cached_tokens, said) == (0, None)
    length = first.started.prompt_tokens
    assert len(load_file(path)["ids"]) == length
    written = path.stat().st_mtime_ns
    again, said = played(checkpoint, path, PROMPT, dtype)
    assert (again.started.cached_tokens, said) == (length - 1, None)
    assert again.text() == first.text()
    assert path.stat().st_mtime_ns == written  # nothing new to store
    longer, _ = played(checkpoint, path, f"{PROMPT} and a", dtype, samples=2)
    assert 0 < longer.started.cached_tokens < longer.started.prompt_tokens
    assert longer.text(1) == played(checkpoint, tmp_path / "other", f"{PROMPT} and a", dtype)[0].text()
    assert len(load_file(path)["ids"]) == longer.started.prompt_tokens
    assert played(checkpoint, path, f"{PROMPT} and a", dtype)[0].text() == longer.text(0)


def test_another_number_format_is_read_anew(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(GOLDEN / "llama2")
    played(checkpoint, tmp_path / "cache", PROMPT)
    found, said = played(checkpoint, tmp_path / "cache", PROMPT, "bfloat16")
    assert found.started.cached_tokens == 0
    assert said is not None
    assert "another model or number format" in said
    assert played(checkpoint, tmp_path / "cache", PROMPT, "bfloat16")[0].started.cached_tokens


def test_other_weights_are_another_model(copy_golden: Copy, tmp_path: Path) -> None:
    folder, path = copy_golden("qwen3"), tmp_path / "cache"
    played(open_checkpoint(folder), path, PROMPT)
    weights = folder / "model.safetensors"
    before = weights.stat()
    tensors = bytearray(weights.read_bytes())
    tensors[-1] ^= 1
    weights.write_bytes(tensors)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    found, said = played(open_checkpoint(folder), path, PROMPT)
    assert found.started.cached_tokens == 0
    assert said is not None
    assert "made with another model" in said


def test_a_fingerprint_changes_with_what_counts(copy_golden: Copy) -> None:
    folder = copy_golden("qwen3")
    prints = {fingerprint(open_checkpoint(folder))}
    (folder / "README.md").write_text("x")
    assert fingerprint(open_checkpoint(folder)) in prints
    os.utime(folder / "model.safetensors", ns=(0, 1))
    prints.add(fingerprint(open_checkpoint(folder)))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-4}))
    prints.add(fingerprint(open_checkpoint(folder)))
    assert len(prints) == 3
    status = (folder / "model.safetensors").stat()
    with open(folder / "model.safetensors", "r+b") as file:  # one byte that a check of samples would miss, with mtime set back
        file.seek(status.st_size - 999)
        file.write(b"\x01")
    os.utime(folder / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns))
    prints.add(fingerprint(open_checkpoint(folder)))
    assert len(prints) == 4


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[: len(data) // 2], lambda data: data[:-9] + b"\xff" + data[-8:]]
)
def test_a_damaged_file_is_written_anew(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    checkpoint, path = open_checkpoint(GOLDEN / "llama2"), tmp_path / "cache"
    text = played(checkpoint, path, PROMPT)[0].text()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    found, said = played(checkpoint, path, PROMPT)
    assert said is not None
    assert "it is damaged" in said
    assert found.text() == text
    assert found.started.cached_tokens == 0
    assert len(path.read_bytes()) == len(whole)
    assert played(checkpoint, path, PROMPT)[0].started.cached_tokens


@pytest.mark.parametrize("content", [b"precious", b"\x08\0\0\0\0\0\0\0[1,2,3] ", None])
def test_a_file_of_another_kind_is_kept(tmp_path: Path, content: bytes | None) -> None:
    checkpoint, path = open_checkpoint(GOLDEN / "llama2"), tmp_path / "cache"
    if content is None:
        save_file({"weight": np.zeros(3, np.float32)}, path, {"format": "pt"})
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(UsageError, match="exists and is not a prompt cache"):
        PromptCache(path, checkpoint)
    assert path.read_bytes() == content
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["fewer ids", "more ids", "no ids", "no state", "another shape", "another format", "a name too many"])
def test_a_file_that_does_not_fit_is_written_anew(tmp_path: Path, change: str) -> None:
    checkpoint, path = open_checkpoint(GOLDEN / "llama2"), tmp_path / "cache"
    text = played(checkpoint, path, PROMPT)[0].text()
    with safe_open(path, "np") as file:
        noted = file.metadata()
    arrays = load_file(path)
    ids, name = arrays["ids"], next(name for name in arrays if name.startswith("state."))
    changes: dict[str, dict[str, np.ndarray]] = {
        "fewer ids": {"ids": ids[:1]},
        "more ids": {"ids": np.append(ids, [7] * 10**6)},
        "no ids": {"ids": ids[:0]},
        "another shape": {name: arrays[name].swapaxes(0, 1).copy()},
        "another format": {name: arrays[name].astype(np.float16)},
        "a name too many": {"state.99.k": arrays[name]},
    }
    arrays = {"ids": ids} if change == "no state" else arrays | changes[change]
    save_file(arrays, path, {**noted, "checksum": _checksum(arrays)})
    found, said = played(checkpoint, path, PROMPT)
    assert said is not None
    assert "another model or number format" in said
    assert (found.text(), found.started.cached_tokens) == (text, 0)
    assert played(checkpoint, path, PROMPT)[0].started.cached_tokens


def test_a_kill_while_it_is_written_leaves_the_old_file_whole(tmp_path: Path) -> None:
    checkpoint, path = open_checkpoint(GOLDEN / "llama2"), tmp_path / "cache"
    played(checkpoint, path, PROMPT)
    whole = path.read_bytes()
    slow = """
import sys, time
from pathlib import Path
from tgen.files import write_atomically
def write(path):
    path.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
write_atomically(Path(sys.argv[1]), write, shared=True)
"""
    with subprocess.Popen([sys.executable, "-c", slow, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == whole
    assert played(checkpoint, path, PROMPT)[0].started.cached_tokens


def test_a_path_that_cannot_be_written_is_found_out_at_once(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(GOLDEN / "llama2")
    for path in (tmp_path, tmp_path / "missing" / "cache", Path("/dev/null"), Path(), tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match="--prompt-cache"):
            PromptCache(path, checkpoint)
    assert not list(tmp_path.iterdir())


def test_a_model_with_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="t5 is encoder-decoder"):
        PromptCache(tmp_path / "cache", open_checkpoint(GOLDEN / "t5"))


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(GOLDEN / "llama2")
    generator = open_generator(checkpoint, RunOptions("cpu", "float32"))
    cache, prefix = PromptCache(tmp_path / "cache", checkpoint), Prefix(generator.executor)
    list(generator.run(PROMPT, generator.resolve({"max_new_tokens": 1}), prefix=prefix))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        note = cache.save(prefix, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write" in (note or "") and "File too large" in (note or "")
    assert not list(tmp_path.iterdir())
