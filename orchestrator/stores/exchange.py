"""What challenges and neighbouring projects read and write: MER2024 submissions, MERR lines, answers of a multimodal LLM.

Predictions ─► submission.csv (name,discrete)          PseudoLabels ─► MERR lines "name frames label"
answers (CSV, JSON lines, MERR lines) ─► texts by name ─► Predictions of those who said one emotion, Rejected for the rest
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from orchestrator.errors import InputError
from orchestrator.stores.artifacts import write_durably
from orchestrator.vocabulary import Emotions, Predictions, Rejected

NAMES = ("clip_id", "name", "id", "sample_id", "video")
ANSWERS = ("answer", "prediction", "response", "discrete", "emotion", "label")
_NEGATIONS = re.compile(r"\b(not|no|never|isn't|without|neither|nor)\b")


def read_candidates(path: Path) -> tuple[str, ...]:
    """The names a submission must cover, column `name` of a CSV. Raises InputError on duplicates or without that column."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "name" not in (rows.fieldnames or ()):
            raise InputError(f"{path} has columns {rows.fieldnames}; the names to predict are in a column `name`")
        names = tuple(row["name"] for row in rows)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{path} asks {len(twice)} names twice, first {twice[0]!r}")
    return names


def write_submission(path: Path, predictions: Predictions, candidates: Sequence[str], emotions: Emotions) -> None:
    """`name,discrete`, one row a candidate, in their order, and no other. Raises InputError when one has no prediction."""
    labels = predictions.probabilities.argmax(axis=1)
    said = dict(zip(predictions.clip_ids.tolist(), labels.tolist(), strict=True))
    if missing := [name for name in candidates if name not in said]:
        raise InputError(
            f"{len(missing)} of {len(candidates)} candidates have no prediction, first {', '.join(missing[:5])}: "
            "put them into the manifest, or see in the report why they were rejected"
        )
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("name", "discrete"))
    rows.writerows((name, emotions.names[said[name]]) for name in candidates)
    write_durably(path, text.getvalue().encode())


def check_submission(path: Path, candidates: Sequence[str], emotions: Emotions) -> None:
    """Raises InputError listing what the scorer would refuse: missing, extra and repeated names, unknown labels, wrong header."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = csv.reader(file)
    names = [row[0] for row in rows]
    wrong = {
        "missing": sorted(set(candidates) - set(names)),
        "not asked for": sorted(set(names) - set(candidates)),
        "there twice": [name for name, count in Counter(names).items() if count > 1],
        "without a known label": [row[0] for row in rows if len(row) != 2 or row[1] not in emotions.names],
    }
    told = [f"{len(found)} {kind}, first {found[0]!r}" for kind, found in wrong.items() if found]
    told += [] if header == ["name", "discrete"] else [f"the header is {header}, not name,discrete"]
    if told:
        raise InputError(f"{path} would be refused: {'; '.join(told)}")


def write_merr(path: Path, rows: Iterable[tuple[str, int, str]]) -> None:
    """Emotion-LLaMA's annotation lines `name frames label`. Raises InputError for a name or a label with blanks."""
    lines = []
    for name, frames, label in rows:
        if re.search(r"\s", name + label) or not name or not label:
            raise InputError(f"{name!r} {label!r} cannot stand in a line of words: blanks separate its fields")
        lines.append(f"{name} {frames} {label}\n")
    write_durably(path, "".join(lines).encode())


def read_merr(path: Path) -> list[tuple[str, int, str]]:
    """Rows (name, frames, label). Raises InputError naming the lines that are not three fields."""
    rows, problems = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        fields = line.split()
        if len(fields) == 3 and fields[1].isdigit():
            rows.append((fields[0], int(fields[1]), fields[2]))
        elif fields:
            problems.append(f"line {number}: {line[:80]!r}")
    if problems:
        raise InputError(f"{path}: {len(problems)} lines are not `name frames label`: {'; '.join(problems[:5])}")
    return rows


def read_answers(path: Path) -> dict[str, str | None]:
    """What a model said, by clip name; None where it failed to answer. The last of several answers to one clip counts.

    Reads `.csv` and `.jsonl` (a name among NAMES, an answer among ANSWERS: Emotion-LLaMA's `batch_infer` and evaluation records,
    our own `clip_id,answer`) and, under any other suffix, MERR lines. Raises InputError.
    """
    if path.suffix not in (".csv", ".jsonl"):
        return {name: label for name, _, label in read_merr(path)}
    told: dict[str, str | None] = {}
    for number, row in _records(path):
        name = next((row[key] for key in NAMES if row.get(key)), None)
        if name is None or not set(ANSWERS) & set(row):
            raise InputError(f"{path}, row {number}: has {sorted(row)}, needs one of {NAMES} and one of {ANSWERS}")
        said = next((row[key] for key in ANSWERS if row.get(key) is not None), None)
        told[str(name)] = None if said is None or row.get("status") == "error" else str(said)
    return told


def parse_answer(text: str, emotions: Emotions) -> int | None:
    """The one emotion a text names, as a label; None when it names none or several, or denies it. Never a guess."""
    said = text.casefold()
    named = {i for i, name in enumerate(emotions.names) if re.search(rf"(?<!\w){re.escape(name.casefold())}(?!\w)", said)}
    return named.pop() if len(named) == 1 and not _NEGATIONS.search(said) else None


def spoken(
    answers: Mapping[str, str | None], emotions: Emotions, *, teacher: str, certainty: float = 0.9
) -> tuple[Predictions, tuple[Rejected, ...]]:
    """What answers amount to: predictions of the clips for which one emotion was named, and the others with the reason.

    A text carries no probability: the named class gets `certainty`, the rest share what is left. Clips are sorted.
    """
    labels = {name: parse_answer(text, emotions) for name, text in answers.items() if text is not None}
    clear = {name: label for name, label in sorted(labels.items()) if label is not None}
    rest = (1 - certainty) / (len(emotions) - 1)
    logits = np.full((len(clear), len(emotions)), np.log(rest), np.float32)
    logits[np.arange(len(clear)), np.array(list(clear.values()), int)] = np.log(certainty)
    failed = [Rejected(name, "teacher", "NO_ANSWER", "") for name, text in answers.items() if text is None]
    junk = [Rejected(name, "teacher", "UNPARSEABLE", str(answers[name])[:200]) for name, label in labels.items() if label is None]
    return Predictions(np.array(list(clear), dtype=np.str_), logits, teacher), tuple(
        sorted(failed + junk, key=lambda r: r.clip_id)
    )


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        yield from enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line or "null")
        except ValueError as error:
            raise InputError(f"{path}, line {number} is not JSON: {line[:80]!r}") from error
        if isinstance(row, dict):
            yield number, row
