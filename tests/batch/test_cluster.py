"""`tgen batch --ray` on a cluster of two nodes on this machine, one of which dies. Needs `pip install 'tgen[ray]'`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.batch.test_run import no_template, script
from tests.engine.scripted import Stage
from tgen.batch.answering import Answerer
from tgen.errors import UsageError

LINES, BEFORE = 600, 150  # a node is killed once BEFORE records are there, and the command with it


def test_the_records_of_a_block_do_not_depend_on_how_lines_are_cut() -> None:
    lines = [(n, json.dumps({"prompt": f"P{n}", "seed": n, "max_tokens": n % 4 + 1}).encode()) for n in range(1, 20)] + [(20, b"bad")]

    def records(*cuts: int) -> list[bytes]:
        answerer = Answerer(Stage(script).generator, "scripted", no_template, {}, {})
        parts = [lines[start:end] for start, end in zip((0, *cuts), (*cuts, len(lines)), strict=True)]
        return [answer.record for part in parts for answer in answerer.answer_all(part, 4)]

    assert records() == records(1, 7) == records(10) and len(records()) == 20
    assert b'"error"' in records()[-1]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from tgen.batch.cluster import ClusterAnswers

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="--ray needs Ray") as caught:
        ClusterAnswers("auto", lambda: pytest.fail("nothing is opened"))
    assert caught.value.hint == "pip install 'tgen[ray]'"


@pytest.mark.long
def test_a_node_dies_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every record is there once, in order, with the bytes of a run on one machine."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "in").write_text("".join(json.dumps({"prompt": f"Story {n}:", "id": n}) + "\n" for n in range(LINES)))
    command = [sys.executable, "-m", "tgen", "batch", str(tmp_path / "in"), "-n", "4", "--seed", "5", "-t", "1"]
    subprocess.run([*command, "-o", str(tmp_path / "alone")], check=True, timeout=300)
    found = tmp_path / "found"
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes()
        command += ["-o", str(found), "--ray", cluster.address]
        with subprocess.Popen(command) as run:
            while run.poll() is None and (not found.exists() or found.read_bytes().count(b"\n") < BEFORE):
                time.sleep(0.1)
            cluster.remove_node(second, allow_graceful=False)
            run.kill()
        assert BEFORE <= found.read_bytes().count(b"\n") < LINES
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        subprocess.run([*command, "--resume"], check=True, timeout=300, env=dict(os.environ))
    finally:
        cluster.shutdown()
    assert found.read_bytes() == (tmp_path / "alone").read_bytes()
