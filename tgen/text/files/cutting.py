"""How tokenizers of byte pairs cut a text before they join bytes: the ways that GGUF names in tokenizer.ggml.pre.

The patterns are those of the tokenizer.json files that llama.cpp's names stand for.
"""

from __future__ import annotations

from dataclasses import dataclass

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = WORDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST
LLAMA3 = WORDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST
SEED_CODER = WORDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN35 = WORDS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}" + SLASH
GPT_4O = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{WORDS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{WORDS}?|\p{{N}}{{1,3}}" + SLASH
# Kimi's, in which Chinese characters are cut off from all other letters.
BIG, SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
KIMI = rf"\p{{Han}}+|[^\r\n\p{{L}}\p{{N}}]?{BIG}*{SMALL}+{WORDS}?|[^\r\n\p{{L}}\p{{N}}]?{BIG}+{SMALL}*{WORDS}?|\p{{N}}{{1,3}}" + REST
MARKS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
DEEPSEEK3 = (
    r"\p{N}{1,3}",
    r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
    MARKS + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


@dataclass(frozen=True, slots=True)
class Cut:
    """Patterns that cut a text, one after another; then, if `words`, GPT-2's own pattern.

    With `digits`, each digit is cut off before that. With `whole`, a word that is a vocabulary entry is one token, whatever its merges.
    With `start`, texts get the start token unless the file says otherwise. With `composed`, characters are composed first (NFC).
    """

    patterns: tuple[str, ...] = ()
    words: bool = False
    digits: bool = False
    whole: bool = False
    start: bool = False
    composed: bool = False


GPT2 = Cut(words=True)
DIGITS = Cut(words=True, digits=True)
CUTS = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "modern-bert", "roberta-bpe", "a.x-4.0", "gigachat"), GPT2),
    **dict.fromkeys(("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"), DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "lfm2"), Cut((LLAMA3,), whole=True, start=True)),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), Cut((LLAMA3,))),
    "glm4": Cut((LLAMA3,), whole=True),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), Cut((QWEN,), composed=True)),
    **dict.fromkeys(("stablelm2", "hunyuan", "solar-open", "grok-2"), Cut((QWEN,))),
    "qwen35": Cut((QWEN35,), composed=True),
    "seed-coder": Cut((SEED_CODER,)),
    "tekken": Cut((TEKKEN,), whole=True, start=True),
    **dict.fromkeys(("gpt-4o", "llama4"), Cut((GPT_4O,))),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), Cut(DEEPSEEK3)),
    "kimi-k2": Cut((KIMI,), whole=True),
    "falcon": Cut((r"[\p{P}\$\+<=>\^~\|`]+",), words=True),
}
