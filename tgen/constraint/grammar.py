"""A grammar is a compiled constraint: it tells which texts are valid. llguidance does the work, and no other module uses that library.

How the folder works together: `schema`, `keywords` and `pattern` prepare a constraint for the library, a grammar compiles it, and a
matcher follows one text through it. A guard (`guard`) keeps one sample to its grammar and its token budget. The planner (`planner`) finds
the guard a short way to the end. `spelling` gives the bytes that a token adds, `place` the position of a text within JSON. This module
is imported only when a request has a constraint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import llguidance
import numpy as np
import numpy.typing as npt

from tgen.constraint.keywords import check_keywords, nearest, subschemas
from tgen.constraint.pattern import example
from tgen.constraint.schema import SHORTEST, examples, narrow, required_names
from tgen.errors import UsageError
from tgen.values import Constraint

# White space between JSON's signs is off: a small model may write it for ever. \u escapes are off: they would hide a repeated name.
JSON_OPTIONS = {"whitespace_flexible": False, "lenient": False, "coerce_one_of": False, "json_allowed_escapes": 'nrbtf\\"'}
# The digits, letters and spaces of --regex are those of ASCII: users seldom want those of other scripts.
ASCII = "dws"
# The library takes seconds for longer expressions.
LARGEST_CHOICES = 1 << 20


class Vocabulary:
    """The tokens of a model, or the 256 bytes, in the form that the library reads."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        # The library needs an end token. It gets one beyond the vocabulary: a guard, not a grammar, knows which tokens end a text.
        self.size = len(tokens)
        self.eos_token_id = len(tokens)
        self.bos_token_id = None
        self.tokens = [*tokens, b"<end>"]
        self.special_token_ids = [len(tokens)]
        self.library = llguidance.LLTokenizer(llguidance.TokenizerWrapper(self))

    def __call__(self, text: bytes | str) -> list[int]:
        """The library asks for a tokenization only where it forces one, and these grammars turn that off."""
        del text
        return []


class Matcher:
    """How far one text has come in its grammar."""

    __slots__ = ("_library", "_size")

    def __init__(self, library: llguidance.LLMatcher, size: int) -> None:
        self._library = library
        self._size = size

    def copy(self) -> Matcher:
        return Matcher(self._library.deep_copy(), self._size)

    def take(self, tokens: Sequence[int]) -> bool:
        """Go on by these tokens. Returns False if they do not fit; after that nobody may use the matcher."""
        return self._library.try_consume_tokens(list(tokens)) == len(tokens) and not self._library.is_error()

    def fits(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens may follow."""
        return self._library.validate_tokens(list(tokens)) == len(tokens)

    def ends(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens may follow, and the text may end after them."""
        # The end token is checked with the others. Where nothing can follow, the library refuses even that one, so `accepting` answers.
        return self._library.validate_tokens([*tokens, self._size]) == len(tokens) + 1 if tokens else self.accepting

    def forced(self) -> bytes:
        """The bytes that must follow."""
        return self._library.compute_ff_bytes()

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, [vocab]; none once the library has reached one of its limits."""
        if self._library.is_stopped():
            return np.zeros(self._size, dtype=np.bool_)
        bits = np.frombuffer(self._library.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little", count=self._size).astype(np.bool_)

    @property
    def accepting(self) -> bool:
        """Whether the text may end here."""
        return self._library.is_accepting()

    @property
    def stopped(self) -> bool:
        """Whether the text cannot go on."""
        return self._library.is_stopped()


class Grammar:
    """A constraint in the library's language, and hints for a search.

    `names` are the property names that a schema requires somewhere, `examples` texts that its patterns match, `choices` all texts that a
    list of choices allows. `unknown` are the words of a schema that count as annotations because JSON Schema does not know them.
    """

    def __init__(self, constraint: Constraint, *, space: bool = False) -> None:
        """With `space`, the tokens begin with a space that the text lacks. Raises UsageError if tgen cannot honour `constraint`."""
        self.constraint = constraint
        self.unknown: list[str] = []
        self.names: frozenset[str] = frozenset()
        self.examples: frozenset[str] = frozenset()
        self.choices: list[str] = json.loads(constraint.text) if constraint.kind == "choices" else []
        if constraint.kind == "json-schema":
            schema = json.loads(constraint.text)
            if schema is False:
                raise UsageError("--json-schema is false, which no text satisfies", "use true, or an object")
            schema = {} if schema is True else schema
            schemas = subschemas(schema)
            self.unknown = check_keywords(schemas)
            self.names, self.examples = required_names(schemas), examples(schemas)
            for each in schemas:
                narrow(each)
            body = "%json " + json.dumps({**schema, "x-guidance": JSON_OPTIONS})
        else:
            if constraint.kind == "regex" and (text := example(constraint.text)):
                self.examples = frozenset({text})
            expression = constraint.text if constraint.kind == "regex" else _any_of(self.choices)
            body = f"/{llguidance.regex_to_lark(expression, ASCII)}/"
        # Without no_forcing the mask allows only the tokenizer's own spelling of bytes that must come.
        start = '" " body' if space else "body"
        self.text = f'%llguidance {{"no_forcing": true}}\nstart: {start}\nbody: {body}\n'

    def matcher(self, vocabulary: Vocabulary) -> Matcher:
        """A matcher at the start of a text. Raises UsageError if the library refuses the constraint."""
        library = llguidance.LLMatcher(vocabulary.library, self.text, log_level=0)
        problem = library.get_error() or next(iter(library.get_grammar_warnings()), "")
        if problem:
            raise _refused(self.constraint, problem)
        return Matcher(library, vocabulary.size)


def byte_vocabulary() -> Vocabulary:
    """A vocabulary in which every byte is the token of its number."""
    return Vocabulary([bytes([byte]) for byte in range(256)])


def check(constraint: Constraint) -> list[str]:
    """Raise UsageError, naming the keyword, for a constraint that tgen cannot honour; this needs no model.

    Returns the words of a schema that are read as annotations because JSON Schema does not know them.
    """
    grammar = Grammar(constraint)
    grammar.matcher(byte_vocabulary())
    return grammar.unknown


def _any_of(choices: Sequence[str]) -> str:
    expression = "|".join("".join(map(_literal, text)) for text in choices)
    if len(expression) > LARGEST_CHOICES:
        raise UsageError("--choices are too many", "use --regex, which can say the same in fewer bytes")
    return expression


def _literal(character: str) -> str:
    return character if character.isalnum() and character.isascii() else f"\\x{{{ord(character):X}}}"


def _refused(constraint: Constraint, problem: str) -> UsageError:
    """The library's complaint as one line that names the keyword."""
    lines = [line.strip() for line in problem.splitlines() if line.strip()]
    first = lines[0].split("failed to compile JSON schema: ")[-1]
    reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error:")), first)
    if constraint.kind != "json-schema":
        reason = reason.split("(in regex): ")[-1]
        hint = "the syntax is that of Rust's regex crate, without lookaround, back-references, word borders, and anchors within a text"
        return UsageError(f"{constraint.flag} cannot be honoured: {reason}", hint)
    if first.startswith("Unimplemented keys: "):
        keys = json.loads(first.removeprefix("Unimplemented keys: "))
        named = ", ".join(f'"{key}"' for key in keys)
        return UsageError(f"--json-schema: {named} cannot be honoured", f"remove {named}, or say the same in other keywords")
    if first.startswith("min/maxProperties"):
        what = '"minProperties" or "maxProperties" beside "properties" that are not all required'
        return UsageError(f"--json-schema: {what} cannot be honoured", 'remove it, or add the names to "required"')
    if first.startswith("oneOf"):
        return UsageError('--json-schema: "oneOf" of alternatives that may overlap cannot be honoured', 'use "anyOf"')
    if first.startswith("Unknown format: "):
        name = first.removeprefix("Unknown format: ")
        return UsageError(f'--json-schema: "format": "{name}" is not known', nearest(name, SHORTEST, 'remove it, or use "pattern"'))
    if reason != first or "regex" in first or "lookaround" in first:
        key = "patternProperties" if first.startswith("patternProperty") else "pattern"
        return UsageError(f'--json-schema: "{key}" cannot be honoured: {reason}', "lookaround and back-references are not known")
    if "circular references" in first or first.startswith(("Resource ", "Anchor ", "Pointer ")):
        reason = "it refers to itself beside other keywords" if "circular" in first else "the schema does not hold its target"
        return UsageError(f'--json-schema: "$ref" cannot be honoured: {reason}', "replace it by the schema that it refers to")
    if first.startswith("Unsatisfiable schema: "):
        reason = first.removeprefix("Unsatisfiable schema: ")
        return UsageError(f"--json-schema: no text satisfies it: {reason}", "change or remove one of the keywords that exclude each other")
    return UsageError(f"--json-schema cannot be honoured: {first.replace('f64', 'number')}", "correct or remove the named part")
