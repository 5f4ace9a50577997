"""Templates that do not work, by mistake or on purpose: one clear error, in little time and memory, and nothing else happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.text.make_chats import TEMPLATES, TOKENS
from tgen.errors import CheckpointError
from tgen.text import rendering
from tgen.text.chat import ChatTemplate, Message
from tgen.text.rendering import BrokenTemplateError, render

MESSAGES = {"messages": [{"role": "user", "content": "hello"}]}
TOO_MUCH = "it takes too many steps, or its text is too long"
DOUBLING = "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}\n{% set ns.x = NEW %}{% endfor %}"
LOOP = "{% for a in range(99999) %}"


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("a\n{% for %}", 2, "unexpected end of block"),
        ("a\n\n{{ x.y.z }}", 3, "'x' is undefined"),
        ("{{ 1 / 0 }}", 1, "unable to calculate 1 / 0"),
        ("{% include 'x' %}", 1, "non-existing template"),
        ("{{ nope() }}", 1, "nope is unknown"),
        ("\n{{ 'a' | nope }}", 2, "filter nope is unknown"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", 1, "undefined"),
        ("{{ cycler.__init__.__globals__.os.system('id') }}", 1, "undefined"),
        ("{{ raise_exception.__globals__.os }}", 1, "undefined"),
        ("{{ messages.__class__.__mro__ }}", 1, "undefined"),
        ("{{ messages.__len__() }}", 1, "insecure method call"),
        ("{{ messages.clear() }}", None, "cannot change"),
        ("{{ messages.copy().append(1) }}", None, "cannot change"),
        ("{{ messages[0].update({'role': 'system'}) }}", None, "cannot change"),
        ("{{ messages[0].copy().clear() }}", None, "cannot change"),
        ("{{ messages.extend(messages) }}", None, "cannot change"),
        ("{{ messages | tojson(indent=10 ** 9) }}", None, "indents by 16 at most"),
        ("\n{{ '{:>900000000}'.format(1) }}", 2, "format needs a literal text without widths"),
        ("\n{{ ('{:>' ~ 10 ** 9 ~ '}') . format(1) }}", 2, "format needs a literal text without widths"),
        ("{{ '\\x7b0\\x3a>900000000}'.format(1) }}", 1, "format needs a literal text without widths"),
        ("\n{{ 1" + "+1" * 100_000 + " }}", 2, "an expression is too long"),
        ("\n{{ '}}' ~ " + "-" * 100_000 + "1 }}", 2, "an expression is too long"),
        ("{{ " + "(" * 1500 + "1 }}", 1, "recursion limit"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", 1, "recursion limit"),
        ("{{ range(10 ** 9) }}", 1, "range has too many elements"),
        ("{{ 10 ** (10 ** 7) }}", 1, "unable to calculate"),
        ("{{ ([1] * 10 ** 9) | length }}", 1, "repeated sequence is too large"),
        ("{{ 'a' * 10 ** 9 }}", 1, TOO_MUCH),
        ("{{ ('a' * 10 ** 10) | length }}", 1, TOO_MUCH),
        ("{{ '%9000000000d' | format(1) }}", 1, TOO_MUCH),
        ("{{ 'a\nb' | indent(900000000) }}", 2, TOO_MUCH),
        (DOUBLING.replace("NEW", "ns.x ~ ns.x"), 2, TOO_MUCH),
        (DOUBLING.replace("NEW", "ns.x + ns.x"), 2, TOO_MUCH),
        (DOUBLING.replace("NEW", "[ns.x, ns.x] | join"), 2, TOO_MUCH),
        (DOUBLING.replace("NEW", "ns.x | replace('a', 'aa')"), 2, TOO_MUCH),
        (DOUBLING.replace("NEW", "ns.x.replace('a', 'aa')"), 2, TOO_MUCH),
        (DOUBLING.replace("NEW", "'%s%s' | format(ns.x, ns.x)"), 2, TOO_MUCH),
        (f"\n{LOOP * 3}{'{% endfor %}' * 3}", 2, TOO_MUCH),
        (LOOP + "{{ messages | string }}{{ 'a' * 999 }}{% endfor %}", 1, TOO_MUCH),
    ],
)
def test_a_bad_template_is_one_clear_error(source: str, line: int | None, words: str) -> None:
    with pytest.raises(BrokenTemplateError) as error:
        render(source, MESSAGES)
    assert words in str(error.value)
    assert error.value.line == line
    assert len(str(error.value).splitlines()) == 1


HOSTILE = [
    DOUBLING.replace("NEW", "ns.x ~ ns.x"),
    "{{ 'x' * 10 ** 9 }}",
    "{{ range(10 ** 9) | list }}",
    LOOP * 3 + "{% endfor %}" * 3,
    LOOP + "{{ 'a' * 999 }}{% endfor %}",
    "{{ '{:>900000000}'.format(1) }}",
]
MEASURE = """
import sys
from pathlib import Path
from tgen.text.rendering import BrokenTemplateError, render
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
render("{{ 1 }}", {})
before = peak()
for source in sys.argv[1:]:
    try:
        render(source, {})
    except BrokenTemplateError:
        print("refused")
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of one process is only known there")
def test_what_means_harm_takes_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE, *HOSTILE], capture_output=True, text=True, check=True, cwd=ROOT)
    *refused, figures = done.stdout.splitlines()
    assert len(refused) == len(HOSTILE)
    assert 0 < int(figures) < 100_000  # KiB


ROOT = Path(__file__).parents[2]
SPACE = "{% set ns = namespace(x=[1]) %}"
ENDLESS = "it takes too much time or memory"


def loop(body: str, turns: int = 60) -> str:
    return f"{SPACE}{{% for i in range({turns}) %}}{body}{{% endfor %}}{{{{ ns.x }}}}"


GROWING = {
    "pairs": loop("{% set ns.x = [ns.x, ns.x] %}"),
    "pairs as JSON": loop("{% set ns.x = [ns.x, ns.x] %}").replace("{{ ns.x }}", "{{ ns.x | tojson }}"),
    "sums": loop("{% set ns.x = ns.x + ns.x %}"),
    "sums of two names": loop("{% set y = ns.x %}{% set ns.x = ns.x + y %}"),
    "a sum in brackets": loop("{% set ns.x = (ns.x + ns.x) or ('a' + 'b') %}"),
    "itself": "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
    "itself by another name": "{% set ns = namespace() %}{% set y = ns %}{% set ns.x = y %}{{ ns }}",
    "itself by a macro": "{% set ns = namespace() %}{% macro f(y) %}{% set y.x = y %}{{ y }}{% endmacro %}{{ f(ns) }}",
    "depth": loop("{% set ns.x = " + "[" * 20 + "ns.x" + "]" * 20 + " %}", 5_000),
    "depth by a filter": loop("{% set ns.x = ns.x | batch(1) %}", 20_000),
    "no loop": "{% set x0 = [1] %}" + "".join(f"{{% set x{i + 1} = [x{i}, x{i}] %}}" for i in range(60)) + "{{ x60 }}",
    "sums, no loop": "{% set x = messages %}" + "{% set y = x %}{% set x = x + y %}" * 60 + "{{ x }}",
    "a loop's own name": loop("{% for a in [ns.x] %}{% set ns.x = [a, a] %}{% endfor %}"),
    "the item before": "{% for a in messages + messages %}{% set x = [loop.previtem] %}{% endfor %}",
    "messages": "{% set messages = [messages, messages] %}" * 60 + "{{ messages }}",
    "a macro": "{% macro f(a, n) %}{{ f([a, a], n - 1) if n else a }}{% endmacro %}{{ f([1], 20) }}",
    "with": "{% with a = [1] %}" + "{% with a = [a, a] %}" * 60 + "{{ a }}" + "{% endwith %}" * 61,
    "dicts": loop("{% set ns.x = {'a': ns.x, 'b': ns.x} %}"),
    "dict()": loop("{% set ns.x = dict(a=ns.x, b=ns.x) %}"),
    "dict() by another name": "{% set f = dict %}" + loop("{% set ns.x = f(a=ns.x, b=ns.x) %}"),
    "dict() as a method": SPACE + "{% set ns.get = dict %}" + loop("{% set ns.x = ns.get(a=ns.x) %}"),
    "tuples": loop("{% set ns.x = (ns.x, ns.x) %}"),
    "tuples without brackets": loop("{% set ns.x = ns.x, ns.x %}"),
    "zip": loop("{% set ns.x = ns.x | zip(ns.x) %}"),
    "chain": loop("{% set ns.x = ns.x | chain(ns.x) %}"),
    "a filter by its name": loop("{% set ns.x = ns.x | map('batch', 1) | list %}"),
    "a long list": "{{ [0] * 10 ** 9 }}",
    "long lists of long lists": "{{ [[[0] * 99999] * 99999] * 99999 }}",
    "a list of ranges": "{{ range(99999) | list }}",
    "behind raw text": "{% raw %}{{ ' {% endraw %}" + loop("{% set ns.x = [ns.x, ns.x] %}") + "{# ' }} #}",
    "behind a comment": "{# {{ ' #}" + loop("{% set ns.x = [ns.x, ns.x] %}") + "{# ' }} #}",
    "a loop that calls itself": "{% for a in [1] recursive %}{{ loop([[a, a]]) }}{% endfor %}",
    "a tag without an end": "{% set x = [1]",
    "a name in quotes": "{{ 'a' }}{{ \"{{ '\" }}" + loop("{% set ns.x = [ns.x, ns.x] %}") + '{{ "\' }}" }}',
}


class AskedError(Exception):
    """Another process would have been started."""


def ask(*_: object, **__: object) -> None:
    raise AskedError


@pytest.mark.parametrize("name", GROWING)
def test_what_may_grow_is_not_rendered_in_this_process(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_rendered", lambda *_: pytest.fail("it was"))
    monkeypatch.setattr(subprocess, "run", ask)
    with pytest.raises(AskedError):
        render(GROWING[name], MESSAGES)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, ENDLESS) for name in ["pairs", "sums", "itself", "itself by another name", "depth", "dict()", "sums, no loop"]),
        ("pairs as JSON", ENDLESS),
        ("a long list", "repeated sequence is too large"),
        ("a loop that calls itself", "recursion limit exceeded"),
        ("a tag without an end", "unexpected end of input"),
    ],
)
def test_growth_is_one_clear_error(name: str, words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    if words == ENDLESS:
        monkeypatch.setattr(rendering, "SECONDS", 1)
    with pytest.raises(BrokenTemplateError, match=words):
        render(GROWING[name], MESSAGES)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is only limited there")
def test_memory_is_limited_where_time_is_not_over() -> None:
    program = (
        "import resource, sys; from tgen.text import rendering\ntry: rendering.render(sys.argv[1], {})\n"
        "except rendering.EndlessTemplateError: print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program, GROWING["chain"]], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 0 < int(done.stdout) <= rendering.MEMORY // 1024


def test_endless_templates_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def end(*_: object) -> None:
        calls.append(0)
        raise rendering.EndlessTemplateError("too much")

    monkeypatch.setattr(rendering, "_apart", end)
    with pytest.raises(CheckpointError, match=r"^place: too much$"):
        ChatTemplate(GROWING["pairs"], "place", {}).render([Message("user", "hello")])
    assert len(calls) == 1


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.jinja")), ids=lambda path: path.stem)
def test_well_known_templates_are_rendered_in_this_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", ask)
    said = [Message("user" if turn % 2 == 0 else "assistant", "word " * 100) for turn in range(19)]
    assert ChatTemplate(path.read_text("utf-8"), "place", TOKENS).render(said)


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.jinja")), ids=lambda path: path.stem)
def test_both_processes_give_the_same_text(path: Path) -> None:
    said = [Message("user", '\ud7ff "é" 😀\r\n'), Message("assistant", "b"), Message("user", "a")]
    plain = path.read_text("utf-8")
    growing = plain + "{% set grown = [bos_token] %}{% set grown = [grown, grown] %}"
    assert ChatTemplate(growing, "", TOKENS).render(said) == ChatTemplate(plain, "", TOKENS).render(said)


def test_what_the_template_says_comes_from_both_processes() -> None:
    for source in ("{{ raise_exception('no \n é') }}", "{% set x = [1] * 2 %}{{ raise_exception('no \n é') }}"):
        with pytest.raises(rendering.RefusalError, match=r"^no \n é$"):
            render(source, {})


def test_values_are_handed_over_unharmed() -> None:
    before = [{"role": "user", "content": "hello"}]
    with pytest.raises(BrokenTemplateError):
        render("{{ messages[0].pop('content') }}", {"messages": before})
    assert before == [{"role": "user", "content": "hello"}]


def test_a_long_conversation_is_within_the_limits() -> None:
    said = [{"role": "user", "content": "word " * 1000}] * 1000
    source = "{% for m in messages %}{{ m.role }}{% set text = m.content | trim %}{{ text ~ '\n' }}{% endfor %}"
    assert len(render(source, {"messages": said})) == 1000 * (4 + 4999 + 1)


def test_format_without_widths_is_allowed() -> None:
    assert render("{{ '{}: {}'.format('a', 2) }}", {}) == "a: 2"
