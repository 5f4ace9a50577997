"""The sanitizers have nothing to report of any kernel, model and number format; and they do report a planted fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.executors.native.models import DTYPES, KERNELS
from tests.executors.native.ports import Port, make_driver, record
from tests.executors.native.sanitizers import SANITIZERS, build, missing
from tests.executors.native.test_ports import MODELS, once
from tests.executors.native.variants import plain_sources

pytestmark = [pytest.mark.toolchain, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


@pytest.fixture(scope="session", params=SANITIZERS)
def sanitized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Port:
    """The library and the driver, built with a sanitizer."""
    return Port(once(tmp_path_factory, request.param, lambda folder: make(request.param, folder)))


def make(kind: str, folder: Path, **options: Path) -> Port:
    build(SANITIZERS[kind], folder, **options)
    return make_driver(folder, SANITIZERS[kind].compiler)


def reports(port: Port, name: str, dtype: str, kernel: str, folder: Path) -> list[str]:
    """What a sanitizer reports of a model's recorded calls, whose memory has its exact size and is freed at the end."""
    recorded = record(name, dtype, KERNELS[-1], folder, threads=3)
    ended = port.run(recorded.calls, kernel)
    recorded.calls.unlink()
    return [f"{name} {dtype} {kernel}: {ended.stderr[:3000]}"] if ended.returncode or ended.stderr else []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_is_reported(sanitized: Port, kernel: str, dtype: str, tmp_path: Path) -> None:
    assert [report for name in MODELS for report in reports(sanitized, name, dtype, kernel, tmp_path)] == []


# Sanitizer, file, what stands there and what is put in its place, and a word of the report.
PLANTED = {
    "a read beyond a matrix": (
        "address",
        "multiply.h",
        "weights = m.data + r * row_bytes;",
        "weights = m.data + 4 + r * row_bytes;",
        "heap-buffer-overflow",
    ),
    "a use of freed memory": (
        "address",
        "pages.cpp",
        "    tgen_memory_free(slab->memory);\n    free(slab);\n",
        "    tgen_memory_free(slab->memory);\n    free(slab);\n    slab->taken++;\n",
        "heap-use-after-free",
    ),
    "a leak": ("address", "pages.cpp", "    tgen_memory_free(slab->memory);\n", "", "detected memory leaks"),
    "an overflow": (
        "undefined",
        "cache.cpp",
        "{ row->length += count; }",
        "{ row->length += count; row->owners += INT32_MAX; row->owners -= INT32_MAX; }",
        "signed integer overflow",
    ),
    "a missing barrier": (
        "thread",
        "run.h",
        "    run.phase = 1 - run.phase;\n    pool_barrier(run.model->pool, thread);\n",
        "    run.phase = 1 - run.phase;\n",
        "data race",
    ),
    "a counter that is not atomic": (
        "thread",
        "run.h",
        "__atomic_compare_exchange_n(taken + owner * LINE, &from, to, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)",
        "(taken[owner * LINE] = to, true)",
        "data race",
    ),
}


@pytest.fixture
def planted(tmp_path: Path) -> Callable[[str], tuple[Port, str]]:
    """A function from the name of a fault to a library that has it, and the word of its report."""

    def plant(name: str) -> tuple[Port, str]:
        kind, file, old, new, word = PLANTED[name]
        (path,) = plain_sources(tmp_path).rglob(file)
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        return make(kind, tmp_path, root=tmp_path), word

    return plant


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_reported(planted: Callable[[str], tuple[Port, str]], name: str, tmp_path: Path) -> None:
    port, word = planted(name)
    assert word in reports(port, "llama3", "float32", "plain", tmp_path)[0]
