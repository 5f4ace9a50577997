"""The options of a generation: each is declared once, checked when its record is made, and resolved once.

Precedence: command line or call > environment (`TGEN_TOP_K` ...) > the user's settings > the folder's generation_config.json > built-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from tgen.declaration import BEAMS, OUTPUT, PROMPT, RUNNING, SAMPLING, check_fields, declared, flag
from tgen.environment import environment_values, settings_values, standing_values
from tgen.errors import UsageError
from tgen.values import (
    CONSTRAINTS,
    NO_BREAKERS,
    SAMPLERS,
    Constraint,
    declarations,
    read_biases,
    read_constraint,
    read_samplers,
    split_bias,
)

Overflow = Literal["error", "truncate-left", "shrink"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantize = Literal["none", "int8", "int4"]
ExecutorChoice = Literal["auto", "native", "torch"]
Pooling = Literal["mean", "first", "last", "max", "weighted", "sqrt"]
AttentionKind = Literal["encoder", "decoder", "cross"]
Origin = Literal["asked", "environment", "settings", "model", "built-in"]


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to continue a prompt. Making one raises UsageError, naming option, value and range, for a value that is not allowed."""

    overflow: Overflow = field(default="error", metadata=declared(
        "What to do if prompt and new tokens exceed the context. error: exit 5 if the prompt leaves no room, else write fewer tokens and "
        "warn. truncate-left: drop the prompt's oldest tokens. shrink: as error, without the warning.",
        PROMPT, choices=get_args(Overflow), environment=True,
    ))  # fmt: skip
    max_new_tokens: int = field(default=256, metadata=declared(
        "Stop after this many tokens.",
        OUTPUT, "INT", aliases=("-n", "--max-tokens", "--n-predict"), low=1, environment=True, folder=True,
    ))  # fmt: skip
    min_new_tokens: int = field(default=0, metadata=declared(
        "Forbid the model's end tokens before this many tokens.",
        OUTPUT, "INT", aliases=("--min-tokens",), low=0, environment=True, folder=True,
    ))  # fmt: skip
    max_time: float | None = field(default=None, metadata=declared(
        "End after this many seconds of reading and writing, with the text so far. Such a text depends on the machine's speed.",
        OUTPUT, "FLOAT", low=0, above=True, environment=True, folder=True,
    ))  # fmt: skip
    logit_bias: tuple[str, ...] = field(default=(), metadata=declared(
        "1st: add VALUE to a token's logit. TOKEN is an id, or the text of one token (in JSON quotes if it is a number); may be given "
        "several times.",
        SAMPLING, "TOKEN=VALUE", repeated=True,
    ))  # fmt: skip
    ban: tuple[str, ...] = field(default=(), metadata=declared(
        "Never write this text, however its tokens are cut; may be given several times.", SAMPLING, "TEXT", repeated=True,
    ))  # fmt: skip
    repetition_penalty: float = field(default=1.0, metadata=declared(
        "2nd: divide positive and multiply negative logits of tokens already in prompt or output; 1 is off.",
        SAMPLING, "FLOAT", aliases=("--repeat-penalty",), low=0, above=True, environment=True, folder=True,
    ))  # fmt: skip
    presence_penalty: float = field(default=0.0, metadata=declared(
        "3rd: subtract this from tokens already in the output; 0 is off.",
        SAMPLING, "FLOAT", environment=True, beams="exclude it", neutral=0,
    ))  # fmt: skip
    frequency_penalty: float = field(default=0.0, metadata=declared(
        "3rd: subtract from a token once for each time it is in the output; 0 is off.",
        SAMPLING, "FLOAT", environment=True, beams="exclude it", neutral=0,
    ))  # fmt: skip
    dry_multiplier: float = field(default=0.0, metadata=declared(
        "4th, DRY: subtract this times base ^ (length - allowed length) from a token that would continue a sequence of that length a "
        "second time; 0 is off.",
        SAMPLING, "FLOAT", low=0, environment=True, beams="exclude it", neutral=0,
    ))  # fmt: skip
    dry_base: float = field(default=1.75, metadata=declared(
        "The base of DRY.", SAMPLING, "FLOAT", low=1, environment=True, beams="ignore it", needs="dry_multiplier",
    ))  # fmt: skip
    dry_allowed_length: int = field(default=2, metadata=declared(
        "The shortest repeated sequence that DRY punishes for going on.",
        SAMPLING, "INT", low=1, environment=True, beams="ignore it", needs="dry_multiplier",
    ))  # fmt: skip
    dry_penalty_last_n: int = field(default=-1, metadata=declared(
        "How many of the last tokens DRY looks at; -1 is all of them.",
        SAMPLING, "INT", low=-1, environment=True, beams="ignore it", needs="dry_multiplier",
    ))  # fmt: skip
    dry_sequence_breakers: tuple[str, ...] = field(default=("\n", ":", '"', "*"), metadata=declared(
        "A text that ends every sequence DRY looks at; may be given several times, and none stands for no such text.",
        SAMPLING, "TEXT", aliases=("--dry-sequence-breaker",), repeated=True, beams="ignore it", needs="dry_multiplier",
        default="a line break, a colon, a double quote, an asterisk",
    ))  # fmt: skip
    no_repeat_ngram_size: int = field(default=0, metadata=declared(
        "Never complete a sequence of this many tokens a second time; 0 is off.",
        SAMPLING, "INT", low=0, environment=True, folder=True,
    ))  # fmt: skip
    num_beams: int = field(default=1, metadata=declared(
        "Keep this many of the likeliest texts at each step, instead of sampling; the text appears only at the end. If only the model's "
        "folder asks for beams, a sampling option by flag or environment turns them off.",
        BEAMS, "INT", low=1, high=256, folder=True,
    ))  # fmt: skip
    samplers: tuple[str, ...] = field(default=SAMPLERS, metadata=declared(
        "The filters that run, in this order; one that is left out is off.",
        SAMPLING, "A,B,...", greedy=False, beams="ignore it", default=", ".join(SAMPLERS),
    ))  # fmt: skip
    temperature: float = field(default=0.8, metadata=declared(
        "5th: divide the logits; 0 takes the likeliest token and skips the rest.",
        SAMPLING, "FLOAT", aliases=("--temp",), low=0, environment=True, folder=True, greedy=False, beams="exclude it", neutral=0,
    ))  # fmt: skip
    top_n_sigma: float = field(default=0.0, metadata=declared(
        "6th: drop tokens whose logit is more than n standard deviations of all logits below the highest; 0 is off.",
        SAMPLING, "FLOAT", low=0, environment=True, greedy=False, beams="exclude it", neutral=0,
    ))  # fmt: skip
    top_k: int = field(default=40, metadata=declared(
        "7th: keep the k likeliest tokens; 0 is off.",
        SAMPLING, "INT", low=0, environment=True, folder=True, greedy=False, beams="exclude it", neutral=0,
    ))  # fmt: skip
    top_p: float = field(default=0.95, metadata=declared(
        "8th: keep the fewest likeliest tokens whose probabilities sum to p or more; 1 is off.",
        SAMPLING, "FLOAT", low=0, high=1, environment=True, folder=True, greedy=False, beams="exclude it", neutral=1,
    ))  # fmt: skip
    min_p: float = field(default=0.0, metadata=declared(
        "9th: drop tokens less than p times as likely as the likeliest; 0 is off.",
        SAMPLING, "FLOAT", low=0, high=1, environment=True, folder=True, greedy=False, beams="exclude it", neutral=0,
    ))  # fmt: skip
    typical_p: float = field(default=1.0, metadata=declared(
        "10th: keep the fewest tokens whose probabilities sum to p or more, those first that surprise about as much as expected; 1 is off.",
        SAMPLING, "FLOAT", aliases=("--typical",), low=0, high=1, environment=True, folder=True, greedy=False, beams="exclude it",
        neutral=1,
    ))  # fmt: skip
    xtc_probability: float = field(default=0.0, metadata=declared(
        "11th, XTC: with this probability, drop all tokens that reach the threshold but the least likely of them; 0 is off.",
        SAMPLING, "FLOAT", low=0, high=1, environment=True, greedy=False, beams="exclude it", neutral=0,
    ))  # fmt: skip
    xtc_threshold: float = field(default=0.1, metadata=declared(
        "The least probability of a token that XTC may drop.",
        SAMPLING, "FLOAT", low=0, high=1, environment=True, greedy=False, beams="ignore it", needs="xtc_probability",
    ))  # fmt: skip
    mirostat_tau: float = field(default=0.0, metadata=declared(
        "Mirostat 2, in place of every filter but temperature: keep the text's surprise near this many bits a token; 0 is off.",
        SAMPLING, "FLOAT", aliases=("--mirostat-ent",), low=0, environment=True, greedy=False, beams="exclude it", neutral=0,
    ))  # fmt: skip
    mirostat_eta: float = field(default=0.1, metadata=declared(
        "How fast Mirostat corrects itself.",
        SAMPLING, "FLOAT", aliases=("--mirostat-lr",), low=0, environment=True, greedy=False, beams="ignore it", needs="mirostat_tau",
    ))  # fmt: skip
    seed: int | None = field(default=None, metadata=declared(
        "The seed of the random stream; the same seed gives the same text. Without --seed, tgen chooses one and reports it.",
        SAMPLING, "INT", low=0, high=2**64 - 1, environment=True, beams="ignore it",
    ))  # fmt: skip
    stop: tuple[str, ...] = field(default=(), metadata=declared(
        "End before this text; may be given several times.", OUTPUT, "TEXT", repeated=True,
    ))  # fmt: skip
    ignore_eos: bool = field(default=False, metadata=declared(
        "Go on after the model's end tokens, instead of stopping there.", OUTPUT,
    ))  # fmt: skip
    constraint: Constraint | None = None
    samples: int = field(default=1, metadata=declared(
        "How many continuations; they are computed together and written one after another.",
        OUTPUT, "INT", aliases=("--num-return-sequences",), low=1, high=4096,
    ))  # fmt: skip
    logprobs: int | None = field(default=None, metadata=declared(
        "With --json: log-probabilities of each token and the N likeliest, of the model's raw distribution before sampling.",
        OUTPUT, "INT", low=0, high=1000, beams="exclude it",
    ))  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("stop", "ban", "logit_bias", "dry_sequence_breakers"):
            _check_texts(name, getattr(self, name))
        if read_samplers(self.samplers) != self.samplers:
            raise UsageError(f"--samplers must be the names of filters, not {self.samplers!r}", f"the filters are {', '.join(SAMPLERS)}")
        for bias in self.logit_bias:
            split_bias(bias)
        if self.samples > self.num_beams > 1:
            raise UsageError(f"--samples {self.samples} is more than --num-beams {self.num_beams}", "each sample takes a beam of its own")
        if not isinstance(self.ignore_eos, bool):
            raise UsageError(f"--ignore-eos must be true or false, not {self.ignore_eos!r}")
        if self.constraint is not None:
            self._check_constraint(self.constraint)

    def _check_constraint(self, constraint: Constraint) -> None:
        """Raise UsageError beside options that would end the text elsewhere, or write several at once."""
        if not isinstance(constraint, Constraint):
            raise UsageError(f"the constraint must be a Constraint, not {constraint!r}", "give json_schema, regex or choices")
        for name, used in (
            ("num-beams", self.num_beams > 1),
            ("stop", bool(self.stop)),
            ("ignore-eos", self.ignore_eos),
            ("max-time", self.max_time is not None),
        ):
            if used:
                raise UsageError(
                    f"{constraint.flag} and --{name} exclude each other", f"{constraint.flag} alone decides where the text ends"
                )

    def notes(self) -> list[str]:
        """Sentences that warn of values that are allowed but hardly intended."""
        return [
            f"--stop {text} holds a backslash and a letter, not a line break or a tab: a shell writes those as $'\\n' and $'\\t'"
            for text in self.stop
            if "\\n" in text or "\\t" in text
        ]


def _check_texts(name: str, value: object) -> None:
    """Raise UsageError for anything but a sequence of texts that are not empty."""
    if not isinstance(value, tuple | list) or not all(isinstance(text, str) for text in value):
        raise UsageError(f"{flag(name)} must be a sequence of texts, not {value!r}")
    if not all(value):
        raise UsageError(f"{flag(name)} must not be empty")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where, in which number format and with which executor to compute; `threads` None leaves the choice to the executor."""

    device: Device = field(default="auto", metadata=declared(
        "Where to compute.", RUNNING, choices=get_args(Device), default="auto: the first available of cuda, mps, cpu", environment=True,
    ))  # fmt: skip
    dtype: Dtype = field(default="auto", metadata=declared(
        "Number format.", RUNNING, choices=get_args(Dtype), default="auto: as stored; with torch on a CPU, float32 if the memory suffices",
        environment=True,
    ))  # fmt: skip
    threads: int | None = field(default=None, metadata=declared(
        "CPU threads. Without --threads, one for each core.", RUNNING, "INT", aliases=("-t",), low=1, high=4096, environment=True,
    ))  # fmt: skip
    executor: ExecutorChoice = field(default="auto", metadata=declared(
        "What computes. native: tgen's own library, for CPUs. torch: PyTorch, for every model and device.",
        RUNNING, choices=get_args(ExecutorChoice), default="$TGEN_EXECUTOR, else auto: native where it runs the model", environment=True,
    ))  # fmt: skip
    quantize: Quantize = field(default="none", metadata=declared(
        "Round the weights to 8 or 4 bits (native executor): less memory and faster. The first run keeps them in the user's cache folder.",
        RUNNING, choices=get_args(Quantize), default="$TGEN_QUANTIZE, else none: as stored", environment=True,
    ))  # fmt: skip

    adapter: tuple[str, ...] = field(default=(), metadata=declared(
        "Add a LoRA adapter to the model: a folder, or a name as for --model. =0.5 adds half of it. May be given several times.",
        RUNNING, "FOLDER[=SCALE]", repeated=True,
    ))  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class GuessOptions:
    """Whether to guess tokens ahead of the model, and the draft model that guesses them, if there is one."""

    guess: bool | None = field(default=None, metadata=declared(
        "Guess the next tokens: look up what followed the last ones earlier in prompt or text, and check several guesses in one step. The "
        "text stays the same, but for rare cases with torch, whose rounding depends on the step.",
        RUNNING, switch=True, environment=True, default="$TGEN_GUESS, else auto: where the executor is exact",
    ))  # fmt: skip
    draft_model: str | None = field(default=None, metadata=declared(
        "Let this small model with the same tokenizer guess the next tokens. At temperature 0 the text stays the same; else a seed gives "
        "another text of the same distribution.",
        RUNNING, "PATH|NAME", environment=True, default="$TGEN_DRAFT_MODEL, else none",
    ))  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self)
        if self.draft_model is not None and not (isinstance(self.draft_model, str) and self.draft_model):
            raise UsageError(f"--draft-model must be a folder or a name, not {self.draft_model!r}")
        if self.draft_model is not None and self.guess is False:
            raise UsageError("--draft-model and --no-guess exclude each other", "leave one of them out")


def settle_guesses(asked: Mapping[str, Any], environment: Mapping[str, str]) -> GuessOptions:
    """The options of guessing; what is asked overrides the environment, and that the settings. Raises UsageError."""
    given = {name: value for name, value in asked.items() if value is not None}
    values = standing_values(GuessOptions, environment)
    if "draft_model" in given or given.get("guess") is False:  # each turns off the other
        values = {}
    return GuessOptions(**{**values, **given})


DECLARED = declarations(GenerationOptions)
ENVIRONMENT = tuple(name for name, option in DECLARED.items() if option.environment)
FROM_MODEL = tuple(name for name, option in DECLARED.items() if option.folder)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Options with every value settled, and the origin of each."""

    options: GenerationOptions
    origins: dict[str, Origin]

    def unused(self) -> set[str]:
        """The options that change nothing beside the others, because beam search, temperature 0 or what runs does not use them."""
        options = self.options
        searched, greedy = options.num_beams > 1, options.temperature == 0
        idle = {
            "xtc_probability" if name == "xtc" else name
            for name in SAMPLERS
            if not greedy and (name not in options.samplers or (options.mirostat_tau and name != "temperature"))
        }
        neutral = {name for name, option in DECLARED.items() if option.neutral is not None and getattr(options, name) == option.neutral}
        return idle | {
            name
            for name, option in DECLARED.items()
            if (searched and option.beams != "use it")
            or (greedy and not option.greedy and name != "temperature")
            or option.needs in idle | neutral
        }


def resolve(asked: Mapping[str, Any], environment: Mapping[str, str], model: Mapping[str, Any]) -> Resolved:
    """Settle every option. A value of None in `asked` counts as not asked; `json_schema`, `regex` or `choices` make the constraint.

    `model` holds the values that the model's folder sets. Raises UsageError for a wrong value in `asked` or `environment`.
    """
    constraint = read_constraint(asked) or asked.get("constraint")
    asked = {**{key: value for key, value in asked.items() if key not in CONSTRAINTS}, "constraint": constraint}
    for name, read in (("samplers", read_samplers), ("logit_bias", read_biases)):
        if asked.get(name) is not None:
            asked[name] = read(asked[name])
    if asked.get("dry_sequence_breakers") in ((), []):
        asked["dry_sequence_breakers"] = NO_BREAKERS
    settled: dict[str, Any] = {option.name: option.default for option in fields(GenerationOptions)}
    origins: dict[str, Origin] = dict.fromkeys(settled, "built-in")
    layers: list[tuple[Origin, Mapping[str, Any]]] = [
        ("model", model),
        ("settings", settings_values(GenerationOptions, environment)),
        ("environment", environment_values(GenerationOptions, environment)),
        ("asked", {key: value for key, value in asked.items() if value is not None}),
    ]
    for origin, values in layers:
        settled |= values
        origins |= dict.fromkeys(values, origin)
    if isinstance(settled["num_beams"], int) and settled["num_beams"] > 1:
        _reconcile_beams(settled, origins)
    options = GenerationOptions(**settled)
    if options.min_new_tokens > options.max_new_tokens and origins["min_new_tokens"] in ("asked", "environment"):
        message = f"--min-new-tokens {options.min_new_tokens} is more than --max-new-tokens {options.max_new_tokens}"
        raise UsageError(message, "give a smaller minimum, or a larger maximum")
    return Resolved(options, origins)


def _reconcile_beams(settled: dict[str, Any], origins: dict[str, Origin]) -> None:
    """Give up the folder's beams for an option that beam search excludes, if the user set it to a value that changes something.

    Raises UsageError where the user asked for both.
    """
    unfit = [
        name
        for name, option in DECLARED.items()
        if option.beams == "exclude it"
        and origins[name] in ("asked", "environment")
        and settled[name] != option.neutral
        and (option.greedy or settled["temperature"] != 0)
    ]
    if settled["constraint"] is not None:
        unfit.append("constraint")
    if origins["num_beams"] == "model" and unfit:
        settled["num_beams"], origins["num_beams"] = 1, origins[unfit[0]]
    both = [name for name in unfit if origins[name] == origins["num_beams"] and name != "constraint"]
    if both and settled["num_beams"] > 1:
        raise UsageError(f"--num-beams and {flag(both[0])} exclude each other", "beam search keeps the likeliest texts")


def check_early(asked: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Raise UsageError for options that are wrong with every model, before anything heavy is imported."""
    resolve(asked, environment, {})
