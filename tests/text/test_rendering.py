"""Templates that do not work, by mistake or on purpose: one clear error, in little time and memory, and nothing else happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
NESTED = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}"


def test_what_no_fuel_counts_ends_with_the_process() -> None:
    """A list of lists that is small, but endless to write out; nothing can interrupt the library, not even Ctrl-C."""
    program = "import sys; from tgen.text import rendering; rendering.WATCHDOG = 0.5; rendering.render(sys.argv[1], {}); print('survived')"
    done = subprocess.run([sys.executable, "-c", program, NESTED], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert "in render" in done.stderr


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
