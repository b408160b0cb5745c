"""The page of one plugin."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence

from bench.contracts import Attack, Defense, Plugin, Screen, Supplier, Task, TaskInfo, TaskKind
from bench.documentation import screened
from bench.documentation.aligning import realigned
from bench.documentation.committed import BoardRow
from bench.documentation.examples import Example
from bench.documentation.parameters import description, parameters
from bench.documentation.restructured import block, code, escape, heading, table
from bench.pipeline import badges
from bench.plugins import Registry

LANGUAGES = {"python": "Python", "java": "Java", "c": "C"}
KINDS = {
    TaskKind.CLASSIFICATION: "one program, a class",
    TaskKind.PAIRS: "two programs, a class",
    TaskKind.SEARCH: "a query, ranked programs",
}


def of_plugin(
    plugin: Plugin, registry: Registry, boards: Sequence[BoardRow], examples: Mapping[str, Sequence[Example]]
) -> str:
    """The page as reStructuredText.

    Args:
        plugin: at its defaults.
        boards: rows of all boards; those in which it takes part are shown.
        examples: by attack.
    """
    parts = [
        f".. py:currentmodule:: {type(plugin).__module__}",
        heading(f"{plugin.name} ({plugin.family})"),
        escape(plugin.summary[:1].upper() + plugin.summary[1:]) + ".",
        _facts(plugin),
        heading("What it does", "-"),
        *_told(plugin),
        heading("Parameters", "-"),
        _parameters(type(plugin)),
    ]
    if not isinstance(plugin, Task):
        parts += [heading("Where it applies", "-"), _applies(plugin)]
    if isinstance(plugin, Attack) and plugin.name in examples:
        parts += [heading("Before and after", "-"), *_examples(examples[plugin.name])]
    if isinstance(plugin, Screen) and (rewritten := screened.example(plugin)) is not None:
        parts += [heading("Before and after", "-"), _SCREENED, _diff(rewritten)]
    rows = [row for row in boards if (plugin.family, plugin.name) in row.plugins]
    parts += [heading("On the boards", "-"), *_rows(plugin, rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(plugin: Plugin) -> str:
    rows = [
        ("Family", plugin.family),
        ("Version", str(plugin.version)),
        ("Paper", escape(plugin.paper) or "none: a control"),
    ]
    if isinstance(plugin, Task):
        info = plugin.info
        goal = plugin.goal()
        classes = ", ".join(map(escape, info.labels)) or "none"
        rows += [
            ("Asks", KINDS[info.kind]),
            ("Classes", classes),
            ("Clean metric", info.metric),
            ("Attacker's aim", code(repr(goal))),
        ]
    if isinstance(plugin, Attack):
        rows += [("Poisons", _poisons(plugin))]
    if isinstance(plugin, Defense):
        rows += [("May know", ", ".join(map(escape, badges(plugin))) or "nothing but its input")]
    if plugin.requires:
        rows += [("Needs packages", ", ".join(map(code, plugin.requires)))]
    rows += [("Source", code(_source(plugin)))]
    return "\n".join(f":{name}: {text}" for name, text in rows)


def _poisons(attack: Attack) -> str:
    if attack.name == "none":
        return "nothing"
    if isinstance(attack, Supplier):
        return "the pretrained encoder; no training sample is touched"
    policy = attack.policy(TaskInfo("", TaskKind.CLASSIFICATION, "python", ("", ""), "accuracy"))
    class_or_all = {"victim": "the victim class", "train": "the training set"}[policy.of]
    amount = f"{policy.count} samples" if policy.rate is None else f"{100 * policy.rate:g} % of {class_or_all}"
    return f"by default {amount}, {policy.labels} labels (a suite may say otherwise)"


def _source(plugin: Plugin) -> str:
    module = type(plugin).__module__
    is_package = hasattr(sys.modules[module], "__path__")
    return module.replace(".", "/") + ("/__init__.py" if is_package else ".py")


def _told(plugin: Plugin) -> list[str]:
    """The module's docstring, and the class's where it says something else."""
    module = realigned(inspect.cleandoc(sys.modules[type(plugin).__module__].__doc__ or ""))
    own = description(type(plugin).__dict__.get("__doc__") or "")
    return list(dict.fromkeys(text for text in (module, own) if text))


def _parameters(cls: type[Plugin]) -> str:
    rows = [
        (code(each.name), escape(each.type), code(each.default) if each.default else "required", each.meaning)
        for each in parameters(cls)
    ]
    if not rows:
        return "It has none."
    return table(("parameter", "type", "default", "meaning"), rows, name="parameters")


def _applies(plugin: Plugin) -> str:
    reasons = {
        (kind, language): plugin.not_applicable(TaskInfo("", kind, language, ("", ""), "accuracy"))
        for kind in TaskKind
        for language in LANGUAGES
    }
    if not any(reasons.values()):
        return "To all kinds of task, in Python, Java and C."
    rows = [
        (
            KINDS[kind],
            *("yes" if (why := reasons[kind, language]) is None else f"no: {escape(why)}" for language in LANGUAGES),
        )
        for kind in TaskKind
    ]
    return table(("task", *LANGUAGES.values()), rows)


def _examples(examples: Sequence[Example]) -> Iterator[str]:
    yield "A small program in each language; what is taken away is marked −, what is written +."
    for example in examples:
        yield heading(example.language, "~")
        if example.missing:
            yield escape(example.missing)
            continue
        yield code(example.draw)
        yield _diff(example)


def _diff(example: Example) -> str:
    before, after = example.before.splitlines(), example.after.splitlines()
    lines = list(difflib.unified_diff(before, after, lineterm="", n=max(len(before), 1)))[3:]
    return block("\n".join(line or " " for line in lines), "diff")


_SCREENED = (
    f"What it writes in the place of a small program with a trigger (``{screened.TRIGGER.strip().splitlines()[0]}`` and what hangs on "
    f"it), made when this page is: at its defaults, fitted on {screened.CLEAN} small clean programs, with a rule of two lines for the "
    "model where it may question one. What is taken away is marked −, what is written +."
)


def _rows(plugin: Plugin, rows: Sequence[BoardRow]) -> Iterator[str]:
    """Rows of a defense; of an attack or task the undefended ones, since its defenses have pages of their own."""
    defends = isinstance(plugin, Defense)
    rows = [row for row in rows if defends or row.undefended]
    if not rows:
        yield "No committed board has a row of it."
        return
    yield f"{_SAID['defense' if defends else plugin.family]} {_LEGEND}"
    titles = ["task", "model", "attack", *(["defense"] if defends else []), "lift", "ASR", "ASR₀", "clean metric"]
    titles += [*(["Δ"] if defends else []), "seeds", "board"]
    body = []
    for row in rows:
        at = [row.task, row.model, row.attack, *([row.defense] if defends else [])]
        shown = [*(row.shown[name] for name in ("lift", "asr", "asr_reference")), f"{row.metric} {row.shown['clean']}"]
        shown += [row.shown["clean_delta"]] if defends else []
        body.append([*map(escape, [*at, *shown]), str(row.seeds), escape(row.suite)])
    yield table(titles, body, name="board")


_SAID = {
    "task": "Undefended rows of this task.",
    "attack": "Undefended rows: what the attack does where nothing is done about it.",
    "defense": "All rows of this defense, alone or in a composition.",
}
_LEGEND = "Per cent, with 95 % intervals; a dash where a number has no meaning. What they mean: :doc:`/board`."
