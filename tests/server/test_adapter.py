"""A server whose model has an adapter answers as the command line does with it."""

from __future__ import annotations

from tests.conftest import GOLDEN
from tests.server.conftest import serving
from tgen.engine.opening import load

BASE, ADAPTER = str(GOLDEN / "granite"), str(GOLDEN / "adapters" / "patterns")
ASKED = {"prompt": "abc", "max_tokens": 12, "temperature": 0}


def test_a_server_answers_with_its_adapter() -> None:
    texts = [load(BASE, adapters=adapters, threads=1).generate("abc", max_new_tokens=12, temperature=0) for adapters in ((), (ADAPTER,))]
    assert texts[0] != texts[1]
    with serving(BASE, adapters=(ADAPTER,)) as served:
        [model] = served.client.models.list().data
        assert served.client.completions.create(model=model.id, **ASKED).choices[0].text == texts[1]
    with serving(BASE, adapters=(f"{ADAPTER}=0",)) as served:
        assert served.client.completions.create(model=model.id, **ASKED).choices[0].text == texts[0]
