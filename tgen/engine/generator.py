"""The engine's entry point: prompts and options in, a stream of events out. It imports neither a command line nor a tensor framework."""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Integral
from typing import TYPE_CHECKING, Any

from tgen.arrays import Logits
from tgen.checkpoint.generation import GenerationConfig
from tgen.engine.beam import Beams, Search, read_beams
from tgen.engine.draft import Draft, DraftGuesses, DraftPrompt
from tgen.engine.guess import Guesses, Lookup, find_runs
from tgen.engine.job import Job, Writer
from tgen.engine.prefix import Prefix
from tgen.engine.request import Limits, Prepared, Refused, Request
from tgen.engine.sample import Line, Sample, Samples, Silence, scored
from tgen.engine.scheduler import Scheduler, Told
from tgen.engine.shared import SharedPrefixes
from tgen.errors import TgenError, UsageError
from tgen.events import Event, Piece, Token
from tgen.executors.session import Executor
from tgen.options import Resolved, resolve
from tgen.sampling.adjustment import Adjustment
from tgen.sampling.logits import require_finite
from tgen.sampling.rules import Rules, read_rules
from tgen.sampling.sampler import Sampler, Trace
from tgen.sampling.wording import Wording, Wordings
from tgen.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tgen.constraint.guard import Guard, Guards

# While rows decode, a step of a batch reads this many ids of prompts.
BATCH_READS = 512

# Returns the next request. Take(True) waits for it, and None means that no more will come; Take(False) returns None if none is ready.
Take = Callable[[bool], Request | Refused | None]


class Generator:
    """A loaded model that continues prompts or, with an encoder, answers them."""

    def __init__(
        self,
        executor: Executor,
        tokenizer: Tokenizer,
        *,
        context: int,
        vocab: int | None = None,
        end_tokens: frozenset[int] = frozenset(),
        start_token: int | None = None,
        answer_start: int | None = None,
        defaults: GenerationConfig | None = None,
        guess: bool | None = None,
        draft: Draft | None = None,
    ) -> None:
        """`defaults` are the model folder's settings; `answer_start` is the first id of an encoder-decoder's answer.

        `vocab` is the model's number of logits; None means the number of the tokenizer's entries. `guess` says whether to guess ahead; None
        means only where guesses cannot change a text. The model of `draft`, if there is one, makes the guesses.
        """
        self.executor = executor
        self.tokenizer = tokenizer
        self.end_tokens = end_tokens
        self.defaults = defaults or GenerationConfig()
        self.guess = executor.exact if guess is None else guess
        self.draft = draft
        self.limits = Limits(context, tokenizer.size() if vocab is None else vocab, start_token, answer_start)

    @property
    def context(self) -> int:
        """How many ids the model can read."""
        return self.limits.context

    def generate(self, prompt: str, **options: Any) -> str:
        """The continuation of a prompt as one string (the first sample's); options are the fields of `GenerationOptions`."""
        return "".join(event.text for event in self.stream(prompt, **options) if isinstance(event, Piece) and event.index == 0)

    def stream(self, prompt: str, *, cancelled: Callable[[], bool] = lambda: False, **options: Any) -> Iterator[Event]:
        """The continuation as events: Reading while a long prompt is read, Started, Pieces of whole characters, and one Finished for each
        sample. Notes may come before and between them, and Special where a sample draws a special token that is no part of its text.

        Raises UsageError for options that are out of range, CapacityError for a prompt that does not fit the context.
        """
        yield from self.run(prompt, self.resolve(options), cancelled)

    def resolve(self, asked: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Resolved:
        """The options with every value set, from the request, the environment or the folder. Raises UsageError, CheckpointError."""
        return resolve(asked, environment or {}, self.defaults.options)

    def run(
        self,
        prompt: str | Sequence[int],
        resolved: Resolved,
        cancelled: Callable[[], bool] = lambda: False,
        watch: Callable[[Trace], None] | None = None,
        prefix: Prefix | None = None,
    ) -> Iterator[Event]:
        """Like `stream`, but with resolved options and a prompt that may be ids.

        `cancelled` is called after each step; `watch` gets the first sample's draws; the model does not read again what `prefix` has read.
        """
        _require_prompt(prompt)
        job = self.job(Request(0, prompt, resolved), watch, prefix)
        scheduler = Scheduler(self.executor, job.rows, draft=self.draft)
        scheduler.add(job)
        try:
            while not scheduler.idle:
                told = scheduler.step()
                # Call it before any event is shown: from its first call on, `cancelled` may hold signals back until a step has ended.
                stop = cancelled()
                yield from _raised(told)
                if stop:
                    yield from _raised(scheduler.cancel(job.key))
        except GeneratorExit:  # the caller stopped reading events; the prefix keeps the row
            scheduler.cancel(job.key)
            raise

    def run_many(self, take: Take, rows: int, cancelled: Callable[[], bool] = lambda: False) -> Iterator[tuple[int, Event | TgenError]]:
        """The events of many requests as they come, each with its request's key; a request that fails ends with its error.

        At most `rows` rows run at once. `cancelled` is called once a step; once it returns True, no more events come. A step reads many
        ids of prompts beside the rows that decode: for a batch, the total time counts and not the time between tokens.
        """
        scheduler = Scheduler(self.executor, rows, beside=BATCH_READS, draft=self.draft)
        over = False
        while not cancelled():
            while not over and scheduler.room > 0 and not cancelled():
                request = take(scheduler.idle)
                if request is None:
                    over = scheduler.idle
                    break
                if isinstance(request, Refused):
                    yield request.key, request.error
                    continue
                try:
                    scheduler.add(self.job(request))
                except TgenError as error:
                    yield request.key, error
            if scheduler.idle and over:
                return
            yield from scheduler.step()

    def job(self, request: Request, watch: Callable[[Trace], None] | None = None, prefix: Prefix | SharedPrefixes | None = None) -> Job:
        """The scheduler's job for a request. Raises TgenError for a prompt that does not fit, and for rules that are not valid."""
        ids = self.tokenizer.encode(request.prompt) if isinstance(request.prompt, str) else request.prompt
        prepared = self.limits.prepare(ids, request.resolved, write=request.write)
        options = prepared.options
        draft = self._draft_prompt(prepared, prefix)
        if not request.write:
            writer: Future[Writer] = Future()
            writer.set_result(Silence(options.samples))
        elif options.constraint is not None:
            # Compiling may take seconds. Another thread does it, while the loop continues the running requests.
            writer = self._compiler.submit(lambda: self._writer(prepared, watch, draft))
        else:
            writer = Future()
            writer.set_result(self._writer(prepared, watch, draft))
        # A kept row gives no logits for the ids that it has read, so a prompt whose tokens are scored is read as a whole.
        count = request.score_prompt
        score = None if count is None else functools.partial(self._score, count)
        return Job(request.key, prepared, max(options.samples, options.num_beams), writer, None if score else prefix, draft, score)

    def prefix(self) -> Prefix:
        """A prefix that keeps what a conversation or a series of prompts has read, the draft model's part included."""
        return Prefix(self.executor, self.draft.executor if self.draft else None)

    def _score(self, count: int, token: int, logits: Logits) -> Token:
        """The score of a token of the prompt, beside `count` candidates. Raises NumericalError for logits that are not finite."""
        require_finite(logits, "in the prompt")
        return scored(self.tokenizer, token, logits, count)

    def _draft_prompt(self, prepared: Prepared, prefix: Prefix | SharedPrefixes | None) -> DraftPrompt | None:
        """The draft model's row of a prompt; None without a draft model, and for beam search, which makes no guesses."""
        if self.draft is None or prepared.options.num_beams > 1:
            return None
        samples = prepared.options.samples
        return DraftPrompt(self.draft, prepared.ids, samples, prefix.draft if prefix and samples == 1 else None)

    def _writer(self, prepared: Prepared, watch: Callable[[Trace], None] | None, draft: DraftPrompt | None) -> Writer:
        """The writer that continues a request. Raises UsageError for a constraint that no text can satisfy."""
        options, ids = prepared.options, prepared.ids
        wording = self._wordings.read(options)
        rules = self._rules(prepared, wording)
        samples = [Sample(index, self.tokenizer, ids, options, self.end_tokens) for index in range(options.samples)]
        if options.num_beams > 1:
            ends = frozenset() if options.ignore_eos else self.end_tokens
            search = Search(read_beams(self.defaults, options.num_beams), ends, options.max_new_tokens)
            return Beams(search, Adjustment(options, rules, ids, wording), samples)
        guard = self._guard(prepared)
        samplers = [
            Sampler(options, prepared.seed, index, ids, rules, None if index else watch, guard.copy() if guard else None, wording)
            for index in range(options.samples)
        ]
        return Samples(list(map(Line, samplers, samples, self._guesses(prepared, draft))))

    def _guesses(self, prepared: Prepared, draft: DraftPrompt | None) -> Sequence[Guesses | None]:
        """What guesses the tokens of each sample: the draft model, or a look-up in the source, the prompt and the text."""
        options = prepared.options
        if draft is not None:
            return [DraftGuesses(draft, options.max_new_tokens, options, prepared.seed, index) for index in range(options.samples)]
        if not self.guess:
            return [None] * options.samples
        ids = [*(prepared.source or ()), *prepared.ids]
        runs = find_runs(ids)
        return [Lookup(ids, options.max_new_tokens, runs) for _ in range(options.samples)]

    def _rules(self, prepared: Prepared, wording: Wording) -> Rules:
        """The tokens that the options and generation_config.json forbid or force."""
        ends = frozenset() if prepared.options.ignore_eos else self.end_tokens
        source = prepared.ids if prepared.source is None else prepared.source
        return read_rules(self.defaults, prepared.options, ends, len(prepared.ids), source, wording.banned)

    def _guard(self, prepared: Prepared) -> Guard | None:
        """The guard that enforces the request's constraint; None without a constraint."""
        options = prepared.options
        return self._guards.guard(options.constraint, prepared.ids, options.max_new_tokens) if options.constraint else None

    @functools.cached_property
    def _wordings(self) -> Wordings:
        return Wordings(self.tokenizer, self.limits.vocab)

    @functools.cached_property
    def _guards(self) -> Guards:
        from tgen.constraint.guard import Guards
        from tgen.constraint.spelling import read_spelling

        return Guards(read_spelling(self.tokenizer, self.limits.vocab), self.end_tokens)

    @functools.cached_property
    def _compiler(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "tgen-constraints")


def _require_prompt(prompt: object) -> None:
    """Raise UsageError for a prompt that is neither text nor token ids, as a caller in Python may give one."""
    if isinstance(prompt, bytes | bytearray):
        raise UsageError("a prompt must be text or token ids, not bytes", "decode it: prompt.decode()")
    if not isinstance(prompt, str) and not (isinstance(prompt, Sequence) and all(isinstance(token, Integral) for token in prompt)):
        raise UsageError(f"a prompt must be text or a sequence of token ids, not {reprlib.repr(prompt)}")


def _raised(told: Told) -> Iterator[Event]:
    """The events of a single request. Raises the request's error."""
    for _, event in told:
        if isinstance(event, TgenError):
            raise event
        yield event
