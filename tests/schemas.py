"""`python -m tests.schemas FILE`: hold --json-schema to its promise on a collection of schemas that others wrote.

tgen refuses a schema at once and names a keyword, or it accepts the schema; then every text closes within its budget and passes an
independent validator. FILE holds one JSON object a line: group, name, schema; it may be compressed (.xz). The models are scripted: some
write noise, others never want to end. The run uses the engine as any program does. It forks, so it needs Linux or another Unix.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import lzma
import multiprocessing
import os
import re
import resource
import sys
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt
from jsonschema import Draft202012Validator, ValidationError, validators

from tests.engine.scripted import END, VOCAB, ScriptedExecutor, byte_tokenizer
from tgen.constraint.spelling import read_spelling
from tgen.engine.generator import Generator
from tgen.engine.request import Request
from tgen.errors import TgenError, UsageError
from tgen.events import Finished, Piece
from tgen.text.tokenizer import Tokenizer

SHIPPED = Path(__file__).parents[1] / "models" / "storyteller"
# A start, a token, a compilation or a validation that takes more seconds is a hang. MEMORY, in bytes of addresses, stops a runaway.
SECONDS, MEMORY = 10.0, 8 << 30
# Tokens beyond the least, where there is room.
ROOM = 80
# The last two are counted, but do not fail the run: a refusal that names no keyword, and a text that takes more than SECONDS.
FAILURES = ("invalid", "hung", "crashed", "unnamed", "slow")
# The bytes that each kind of model wants to write, and those that it avoids. All but the first avoid the end token, too.
WISHES = {
    "noise": (b"", b""),
    "opens": (b'{["', b"}]"),
    "babbles": (b"a", b'"'),
    "counts": (b"9.e", b",]}"),
    "names": (b'",:', b"}]"),
    "stutters": (bytes(range(0x80, 0x100)) + b"\\", b'"'),
}
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """A schema, and where it is from."""

    group: str
    name: str
    schema: Any


@dataclass(slots=True)
class Outcome:
    """The result for one schema. `failures` are pairs of a kind and what happened; times are the longest of their kind, in seconds."""

    alone: bool = False
    run: bool = False
    refusal: str | None = None
    failures: list[tuple[str, str]] = field(default_factory=list)
    unchecked: str | None = None
    texts: int = 0
    start: float = 0.0
    step: float = 0.0
    text: float = 0.0
    library: float = 0.0

    @property
    def keyword(self) -> str:
        """The keyword that a refusal names; that no text satisfies the schema; or an empty text."""
        said = self.refusal or ""
        named = re.findall(r"""["'](\$?[a-zA-Z]\w*)["']|Invalid (type)""", said)
        return "".join(named[0]) if named else "(no text satisfies it)" if "no text satisfies" in said else ""

    def failed(self, kind: str) -> bool:
        return any(kind == found for found, _ in self.failures)


class Model:
    """A tokenizer, and scripts that want to write what a constraint forbids."""

    def __init__(self, name: str, tokenizer: Tokenizer, end: int, vocab: int) -> None:
        self.name = name
        self.vocab = vocab
        self._tokenizer = tokenizer
        self._end = end
        texts = read_spelling(tokenizer, vocab).tokens
        self.wishes = {wish: self._wish(texts, *signs) for wish, signs in WISHES.items()}
        self.generator = Generator(
            ScriptedExecutor(lambda read: self.script(read)), tokenizer, context=1 << 20, vocab=vocab, end_tokens=frozenset([end])
        )
        self.script: Callable[[tuple[int, ...]], Logits] = lambda _: np.zeros(vocab, dtype=np.float32)

    def _wish(self, texts: Sequence[bytes], wanted: bytes, loathed: bytes) -> npt.NDArray[np.float64]:
        """Logits, [vocab], that favour tokens with the wanted bytes, avoid those with the loathed, and avoid the end token most."""
        wishes = np.array([4.0 * sum(byte in wanted for byte in text) - 40.0 * any(byte in loathed for byte in text) for text in texts])
        wishes[self._end] = -90 if wanted else 0
        return wishes

    def least(self, schema: Any) -> int:
        """How many tokens the engine says that it needs. Raises TgenError if it refuses the schema."""
        try:
            self.generator.job(Request(0, "P", self.generator.resolve({"json_schema": schema, "max_new_tokens": 1}))).writer.result()
        except UsageError as error:
            found = re.search(r"needs at least (\d+) new tokens", error.message)
            if found is None:
                raise
            return int(found[1])
        return 1


class Trial:
    """One schema tried in a process of its own. It reports each step; the parent process ends it when it is silent for too long."""

    def __init__(self, case: Case, models: Sequence[Model], texts: int, seed: int, tell: Callable[[object], None]) -> None:
        self.case, self.models, self.texts, self.seed = case, models, texts, seed
        self.found = Outcome()
        self.doing = ""
        self._tell = tell
        self._validate = validator(case.schema)

    def run(self) -> None:
        self._begin("llguidance alone")
        begun = time.perf_counter()
        self.found.alone = runs_alone(self.case.schema)
        self.found.library = time.perf_counter() - begun
        try:
            least = [self._least(model) for model in self.models]
        except TgenError as error:
            self.found.refusal = error.message
            if not self.found.keyword:
                self.found.failures.append(("unnamed", error.message))
            return
        self.found.run = True
        budgets = [(model, budget) for model, few in zip(self.models, least, strict=True) for budget in (few, 2 * few + ROOM)]
        ways = [(wish, model, budget) for wish in WISHES for model, budget in budgets]
        first = zlib.crc32(self.case.name.encode()) % len(WISHES) * len(budgets)
        for number in range(first, first + self.texts):
            self._write(*ways[number % len(ways)], self.seed + (number - first) // len(ways))

    def _least(self, model: Model) -> int:
        self._begin(f"{model.name}: start")
        begun = time.perf_counter()
        try:
            return model.least(self.case.schema)
        finally:
            self.found.start = max(self.found.start, time.perf_counter() - begun)

    def _write(self, wish: str, model: Model, budget: int, seed: int) -> None:
        """Write one text and note each fault of it."""
        told = f"{model.name}, {wish}, {budget} tokens, seed {seed}"
        self._begin(told)
        times: list[float] = []

        def script(read: tuple[int, ...]) -> Logits:
            times.append(time.perf_counter())
            self._tell(None)
            noise = np.random.default_rng([seed, len(read)]).normal(0, 3 if wish == "noise" else 0.5, model.vocab)
            return (model.wishes[wish] + noise).astype(np.float32)

        model.script = script
        begun = time.perf_counter()
        asked = {"json_schema": self.case.schema, "max_new_tokens": budget, "seed": seed, "temperature": 1.0}
        try:
            events = list(model.generator.stream("P", **asked))
        except TgenError as error:
            self.found.failures.append(("crashed", f"{told}: refused when it was to write: {error.message}"))
            return
        ended = time.perf_counter()
        text = "".join(event.text for event in events if isinstance(event, Piece))
        finished = next(event for event in events if isinstance(event, Finished))
        self.found.texts += 1
        self.found.start = max(self.found.start, times[0] - begun)
        self.found.step = max(self.found.step, *(after - before for before, after in zip(times, [*times[1:], ended], strict=True)))
        self.found.text = max(self.found.text, ended - begun)
        if ended - begun > SECONDS:
            self.found.failures.append(("slow", f"{told}: {len(times)} tokens took {ended - begun:.0f} s"))
        self._begin(f"{told}: validation")
        wrong = self._wrong(text, finished, budget)
        if wrong is not None:
            self.found.failures.append(("invalid", f"{told}: {wrong}: {shorten(text)}"))

    def _wrong(self, text: str, finished: Finished, budget: int) -> str | None:
        if finished.reason != "stop":
            return f"ended by {finished.reason}"
        if finished.token_count > budget:
            return f"took {finished.token_count} tokens"
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            return f"no JSON: {error}"
        try:
            self._validate(value)
        except ValidationError as error:
            return f"{error.json_path} {shorten(error.message)}"
        except Exception as error:  # the validator itself has failed
            self.found.unchecked = f"{type(error).__name__}: {shorten(str(error))}"
        return None

    def _begin(self, doing: str) -> None:
        self.doing = doing
        self._tell(doing)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def shorten(text: str) -> str:
    return text if len(text) <= 240 else f"{text[:160]} ... {text[-60:]}"


def validator(schema: Any) -> Callable[[Any], None]:
    """A check that raises ValidationError for a value that does not fit, under the draft that the schema names."""
    kind = validators.validator_for(schema, default=Draft202012Validator)
    check: Callable[[Any], None] = kind(schema, format_checker=kind.FORMAT_CHECKER).validate
    return check


def runs_alone(schema: Any) -> bool:
    """Whether the grammar library takes a schema as it is, with its defaults."""
    try:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(schema)
        return not llguidance.LLMatcher(_library(), grammar, log_level=0).get_error()
    except ValueError:
        return False


@functools.cache
def _library() -> llguidance.LLTokenizer:
    return llguidance.LLTokenizer("byte")


def child(case: Case, models: Sequence[Model], texts: int, seed: int, line: Connection) -> None:
    """Try a schema and send messages: None as a sign of life, a text that says what the trial does now, a dictionary as the outcome."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    trial = Trial(case, models, texts, seed, line.send)
    try:
        trial.run()
    except BaseException as error:  # a panic of the library is not even an Exception
        trial.found.failures.append(("crashed", f"{trial.doing}: {type(error).__name__}: {shorten(str(error))}"))
    line.send(asdict(trial.found))
    line.close()


def attempt(case: Case, models: Sequence[Model], texts: int, seed: int) -> Outcome:
    """The outcome of a schema, tried in a process of its own that is ended when it hangs."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(case, models, texts, seed, theirs), daemon=True)
    process.start()
    theirs.close()
    doing, found = "", Outcome()
    try:
        while ours.poll(SECONDS):
            said = ours.recv()
            if isinstance(said, dict):
                return Outcome(**said)
            doing = said or doing
        found.failures.append(("hung", f"{doing}: more than {SECONDS:g} s"))
    except EOFError:
        process.join()
        found.failures.append(("crashed", f"{doing}: exit code {process.exitcode}"))
    finally:
        process.kill()
        process.join()
        ours.close()
    return found


def read(path: Path, groups: Sequence[str]) -> Iterator[Case]:
    """The file's schemas, of these groups or of all."""
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            values = json.loads(line)
            case = Case(values["group"], values["name"], values["schema"])
            if not groups or case.group in groups:
                yield case


def table(found: Iterable[tuple[Case, Outcome]]) -> None:
    """Print for each group how many schemas ended in which way, and the longest times."""
    rows: dict[str, list[Outcome]] = defaultdict(list)
    for case, outcome in found:
        rows[case.group].append(outcome)
    rows = {**dict(sorted(rows.items())), "all": [outcome for group in rows.values() for outcome in group]}
    width = max(map(len, rows))
    print(f"{'group':{width}}  schemas    run  refused  alone  texts  " + "  ".join(FAILURES) + "  start s  step s  text s  alone s")
    for group, outcomes in rows.items():
        counts = [len(outcomes), sum(o.run for o in outcomes), sum(o.refusal is not None for o in outcomes), sum(o.alone for o in outcomes)]
        counts += [sum(o.texts for o in outcomes), *(sum(o.failed(kind) for o in outcomes) for kind in FAILURES)]
        cells = "  ".join(f"{count:{size}}" for count, size in zip(counts, (7, 5, 7, 5, 5, *map(len, FAILURES)), strict=True))
        times = [max(getattr(o, kind) for o in outcomes) for kind in ("start", "step", "text", "library")]
        print(f"{group:{width}}  {cells}  " + "  ".join(f"{seconds:{size}.2f}" for seconds, size in zip(times, (7, 6, 6, 7), strict=True)))


def refusals(found: Iterable[tuple[Case, Outcome]]) -> None:
    """Print the refusals by the keyword that they name. A star marks a schema that the library alone accepts."""
    rows: dict[str, list[str]] = defaultdict(list)
    for case, outcome in found:
        if outcome.refusal is not None:
            star = "*" if outcome.alone else " "
            rows[outcome.keyword or "(nothing named)"].append(f" {star} {case.group}/{case.name}: {shorten(outcome.refusal)}")
    for keyword, lines in sorted(rows.items(), key=lambda row: -len(row[1])):
        print(f"{keyword}: {len(lines)}, of which the library alone takes {Counter(line[1] for line in lines)['*']}")
        print("\n".join(lines))


def main() -> int:
    """The exit code: 1 if any text was invalid, or anything hung or crashed."""
    parser = argparse.ArgumentParser(prog="python -m tests.schemas", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--texts", type=int, default=8, help="for each schema; 24 see all models, tokenizers and budgets [default: 8]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--groups", nargs="+", default=[], help="only these groups")
    parser.add_argument("--names", nargs="+", default=[], help="only schemas of these names")
    parser.add_argument("--refused", action="store_true", help="list what was refused, by keyword")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    shipped = Tokenizer.load(SHIPPED)
    models = [Model("bytes", byte_tokenizer(), END, VOCAB), Model("storyteller", shipped, 0, shipped.size())]
    found: list[tuple[Case, Outcome]] = []
    with contextlib.suppress(KeyboardInterrupt):
        for case in read(options.file, options.groups):
            if options.names and case.name not in options.names:
                continue
            outcome = attempt(case, models, options.texts, options.seed)
            found.append((case, outcome))
            for kind, what in outcome.failures:
                print(f"{kind}: {case.group}/{case.name}: {what}", flush=True)
            if outcome.unchecked is not None:
                print(f"the validator itself fails: {case.group}/{case.name}: {outcome.unchecked}", flush=True)
    if options.refused:
        refusals(found)
    if found:
        table(found)
    return int(any(outcome.failed(kind) for _, outcome in found for kind in ("invalid", "hung", "crashed")))


if __name__ == "__main__":
    sys.exit(main())
