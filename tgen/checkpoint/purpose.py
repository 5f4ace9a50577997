"""Names the task of a model with a head that tgen has no command for, such as a classifier. Only the words of an error depend on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tgen.errors import UnsupportedError

# The endings of the class that config.json names, and what such a model does.
TASKS = {
    "ForSequenceClassification": "sorts or scores whole texts (a classifier or reranker)",
    "ForTokenClassification": "labels tokens, such as the names in a text",
    "ForQuestionAnswering": "marks an answer in a given text",
    "ForMultipleChoice": "chooses among given answers",
    "ForNextSentencePrediction": "tells whether one sentence follows another",
    "ForImageClassification": "sorts images",
}
# The beginnings of the names of such heads' tensors, for folders whose config.json names no class.
HEADS = {
    "classifier.": TASKS["ForSequenceClassification"],
    "classification_head.": TASKS["ForSequenceClassification"],
    "pre_classifier.": TASKS["ForSequenceClassification"],
    "score.": TASKS["ForSequenceClassification"],
    "qa_outputs.": TASKS["ForQuestionAnswering"],
}
HINT = "tgen has no command for it: get the model without that head, for tgen fill, tgen embed or tgen generate"


def other_task(config: Mapping[str, Any], stored: Iterable[str]) -> UnsupportedError | None:
    """The error for weights with the head of such a task; None if they have no such head."""
    head = next((name for name in stored if name.startswith(tuple(HEADS))), None)
    if head is None:
        return None
    named = config.get("architectures")
    classes = [one for one in named if isinstance(one, str)] if isinstance(named, list) else []
    found = next(((one, what) for one in classes for ending, what in TASKS.items() if one.endswith(ending)), None)
    start = next(start for start in HEADS if head.startswith(start))
    name, what = found or (f"the model with the head {start[:-1]}", HEADS[start])
    return UnsupportedError(f"{name[:80]} {what}; it writes no text", HINT)
