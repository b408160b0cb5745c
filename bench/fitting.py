"""Do records fit together? What one label stands for must be the same in every cell: data, settings, plugins, policy and goal.

Other package versions, devices and machines are no misfit: they are in the record, and a board may hold cells of several machines.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.faults import Fault
from bench.records import Record, Status

Question = tuple[str, tuple[str, ...]]
"""What must agree (in words), and among the cells of which labels."""


def answers(record: Record) -> Iterator[tuple[Question, str]]:
    """What a record that is ok says of the labels of its coordinates, as JSON."""
    at, used = record.coordinates, record.plugins
    if record.status is not Status.OK:
        return
    if record.data_digest:
        yield ("data digest", ("task", at.task)), json.dumps(record.data_digest)
    for role in sorted(used):
        label = at.defense if role.startswith("defense") else at.attack if role.startswith("attack") else at.task
        told = {"name": used[role].name, "version": used[role].version, "parameters": used[role].effective}
        where = ("task", at.task, role, label) if role != "task" else ("task", label)
        yield (f"{role} plugin", where), _json(told)
    settings = {name: value for name, value in record.settings.items() if name != "numerics"}
    if settings:
        yield ("settings", ("task", at.task, "model", at.model)), _json(settings)
    if record.policy or record.goal:
        yield ("policy and goal", ("task", at.task, "attack", at.attack)), _json([record.policy, record.goal])


def _json(value: Any) -> str:
    """JSON in one form."""
    return json.dumps(_told(value), sort_keys=True)


def _told(value: Any) -> Any:
    """Without keys that hold nothing (an older record lacks an optional parameter that was added later, a newer one says null), and with
    whole numbers in one spelling: 1 and 1.0 are the same."""
    if isinstance(value, Mapping):
        return {key: _told(held) for key, held in value.items() if held is not None}
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def standard(records: Iterable[Record]) -> dict[Question, str]:
    """What most records say (on a tie: the last in the order of text, which is the higher version)."""
    counted: dict[Question, Counter[str]] = {}
    for record in records:
        for question, answer in answers(record):
            counted.setdefault(question, Counter())[answer] += 1
    return {q: max(found.items(), key=lambda one: (one[1], one[0]))[0] for q, found in counted.items()}


def misfit(record: Record, known: Mapping[Question, str]) -> str | None:
    """Why a record does not fit what is known, or ``None``. What is not known yet fits."""
    for question, answer in answers(record):
        expected = known.get(question)
        if expected is not None and answer != expected:
            what, where = question
            labels = ", ".join(f"{axis} {label}" for axis, label in zip(where[::2], where[1::2], strict=True))
            return f"its {what} ({_difference(answer, expected)}) is not that of the other cells of {labels}. Run the cell again"
    return None


_NONE = "nothing"


def _difference(answer: str, expected: str) -> str:
    """The part in which two JSON texts differ."""
    one, other = json.loads(answer), json.loads(expected)
    while isinstance(one, dict) and isinstance(other, dict):
        # As texts, as misfits are found: true is not 1.
        keys = [key for key in sorted({*one, *other}) if _json(one.get(key)) != _json(other.get(key))]
        if len(keys) > 1 and not isinstance(one.get(keys[0]), dict):
            return "; ".join(
                f"{key} {_short(one.get(key, _NONE))}, not {_short(other.get(key, _NONE))}" for key in keys[:3]
            )
        key, one, other = keys[0], one.get(keys[0], _NONE), other.get(keys[0], _NONE)
        if not (isinstance(one, dict) and isinstance(other, dict)):
            return f"{key} {_short(one)}, not {_short(other)}"
    return f"{_short(one)}, not {_short(other)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else _json(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


_NOT_OF_THE_CELL = {"suite", "command", "calibration", "stealth", "files", "schema_version", "packages"}
"""What two records of one cell may differ in."""


def difference(one: Record, other: Record) -> str | None:
    """In what two records of one cell disagree, or ``None``."""
    a, b = (record.model_dump(mode="json", exclude=_NOT_OF_THE_CELL) for record in (one, other))
    names = [name for name in a if told_differently(a[name], b[name])]
    if names:
        return ", ".join(names)
    files = {name for name in one.files if name in other.files and one.files[name] != other.files[name]}
    return ", ".join(sorted(files)) or None


def told_differently(one: Any, other: Any) -> bool:
    """Do two JSON values differ in something that both of them tell? An older record leaves out what was added later."""
    if isinstance(one, dict) and isinstance(other, dict):
        either, both = {**one, **other}, one.keys() & other.keys()
        if all(either[key] is None for key in either.keys() - both):
            return any(told_differently(one[key], other[key]) for key in both if None not in (one[key], other[key]))
    return bool(one != other)


def sift(records: Sequence[Record]) -> tuple[list[Record], list[Fault]]:
    """The records that a board may hold, in their order, and what is wrong with the others.

    Of several records of one cell that agree one is kept; those that disagree are all left out, since none of them is known to be right.
    """
    faults: list[Fault] = []
    single = _without_duplicates(records, faults)
    known = standard(single)
    kept = []
    for record in single:
        why = misfit(record, known)
        if why is None:
            kept.append(record)
        else:
            faults.append(Fault(where=_where(record), what=why, slug=record.coordinates.slug))
    return kept, sorted(faults, key=str)


def _where(record: Record) -> str:
    return f"{record.suite}: {record.coordinates.slug}"


def _without_duplicates(records: Sequence[Record], faults: list[Fault]) -> list[Record]:
    cells: dict[object, list[Record]] = {}
    for record in records:
        cells.setdefault(tuple(record.coordinates.model_dump().values()), []).append(record)
    kept = []
    for found in cells.values():
        found = sorted(found, key=lambda record: (record.calibration, record.suite))
        whys = [why for other in found[1:] if (why := difference(found[0], other)) is not None]
        if not whys:
            kept.append(found[0])
            continue
        for record in found:
            what = (
                f"{len(found)} records of this cell disagree in {whys[0]}; delete the wrong ones, or run the cell again"
            )
            faults.append(Fault(where=_where(record), what=what, slug=record.coordinates.slug))
    return kept
