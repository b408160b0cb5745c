"""What the page of one cell shows, as plain values for its template."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup

from bench.board.detection import Trial
from bench.metrics import Number, recovered
from bench.records import DATA_FACTS, Coordinates, PoisonFacts, Record
from bench.site import words
from bench.site.charts.bars import Bar, rank_bars, share_bars
from bench.site.charts.detectors import roc_chart
from bench.site.charts.losses import loss_chart
from bench.site.content import Content, Place
from bench.site.diff import diff_lines
from bench.site.examples import AttackExamples
from bench.site.facts import CellFacts, Confusion
from bench.site.links import CELLS, cell_link

MODELS: Final = {"reference": "clean reference", "undefended": "undefended", "defended": "defended"}
INPUTS: Final = {"clean": "Clean inputs", "triggered": "Inputs with the trigger"}

SECTIONS: Final[tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...]] = (
    (
        "Clean inputs",
        (
            ("clean", "clean metric", False),
            ("clean_undefended", "the same, undefended", False),
            ("clean_reference", "the same, clean reference", False),
            ("clean_constant", "the same, a constant answer", False),
            ("clean_delta", "defended less undefended", True),
            ("reference_delta", "undefended less reference", True),
            ("false_reject", "clean inputs rejected", False),
            ("false_rewrite", "clean inputs rewritten", False),
        ),
    ),
    (
        "Inputs with the trigger",
        (
            ("asr", "ASR", False),
            ("asr_undefended", "ASR, undefended", False),
            ("asr_reference", "ASR₀, clean reference", False),
            ("asr_published", "ASR as published: over the whole victim class", False),
            ("lift", "lift", True),
            ("asr_delta", "defended less undefended", True),
            ("reverse_asr", "reverse ASR", False),
            ("reverse_asr_reference", "reverse ASR, clean reference", False),
            ("robust_accuracy", "RA", False),
            ("coverage", "coverage", False),
            ("visible", "visible", False),
            ("caught", "stopped by the screen", False),
        ),
    ),
    (
        "Rank of the triggered code",
        (
            ("anr", "ANR", False),
            ("anr_undefended", "ANR, undefended", False),
            ("anr_reference", "ANR, clean reference", False),
            ("anr_published", "ANR as published: its own program in the pool", False),
            ("anr_lift", "ANR less the reference's", True),
            ("asr_at_1", "ASR@1", False),
            ("asr_at_5", "ASR@5", False),
            ("asr_at_10", "ASR@10", False),
            ("asr_top_tenth", "in the top tenth", False),
        ),
    ),
    (
        "Detection",
        tuple(
            (f"{kind}_{name}", f"{kind}: {text}", False)
            for kind in ("filter", "screen")
            for name, text in (
                ("auroc", "AUROC"),
                ("auprc", "AUPRC"),
                ("tpr", "TPR at 1 % FPR"),
                ("precision", "precision"),
                ("precision_at_share", "precision at the true share"),
                ("recall", "poison removed"),
                ("clean_lost", "clean samples lost"),
            )
        ),
    ),
    (
        "Inversion",
        (
            ("recovery", "trigger tokens recovered", False),
            ("recovery_reference", "the same on the clean reference (null)", False),
        ),
    ),
)


def context(
    content: Content,
    record: Record,
    near: Sequence[Record],
    before: Record | None,
    after: Record | None,
    shown: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Everything the template asks for.

    Args:
        content: the whole board.
        record: the cell.
        near: the row's other seeds.
        before: the cell before this one in the board's order, if any.
        after: the one after.
        shown: ``seed`` and ``html`` of the attack's examples, if there are any.
    """
    at, slug = record.coordinates, record.coordinates.slug
    numbers, facts = content.numbers.get(slug, {}), content.facts.get(slug, CellFacts())
    return {
        "content": content,
        "record": record,
        "at": at,
        "metric": words.metric_name(record.metric),
        "status": record.status.value.replace("_", " "),
        "near": [(one.coordinates.seed, cell_link(one.coordinates, "")) for one in near],
        "before": _neighbour(before),
        "after": _neighbour(after),
        "undefended": _link_to(content, at, "none"),
        "tiles": list(_tiles(record, numbers)),
        "bars": list(_bars(record, numbers)),
        "sections": list(_sections(numbers)),
        "undefined": _undefined(numbers),
        "confusions": _confusions(facts, record),
        "rank_bars": _rank_bars(facts, at),
        "curves": _curves(facts, numbers),
        "inversion": _inversion(record, content.trials.get(slug)),
        "examples": shown,
        "record_file": f"../../{CELLS}/{quote(slug)}.json",
        "timing": content.timings.get(slug, {}),
        "provenance": list(_provenance(record)),
    }


def _neighbour(record: Record | None) -> tuple[str, str] | None:
    if record is None:
        return None
    at = record.coordinates
    return f"{at.defense} on {at.attack}, seed {at.seed}", cell_link(at, "")


def _link_to(content: Content, at: Coordinates, defense: str) -> str:
    """The cell of the same model with another defense, if there is one and it is not this."""
    where: Place = (at.task, at.model, at.attack, defense)
    found = (r for r in content.records.get(where, ()) if r.coordinates.seed == at.seed)
    one = next(found, None)
    return "" if one is None or at.defense == defense else cell_link(one.coordinates, "")


# ------------------------------------------------------------------------------------------------------------- numbers


def _tiles(record: Record, numbers: Mapping[str, Number]) -> Iterator[dict[str, str]]:
    metric = words.metric_name(record.metric)
    for name, title, signed in (("clean", f"clean {metric}", False), ("asr", "ASR", False), ("lift", "lift", True)):
        number = numbers.get(name)
        if number is not None and number.value is not None:
            yield {
                "title": title,
                "value": words.value(number, signed=signed),
                "interval": words.interval(number, signed=signed),
                "unit": "points" if signed else "%",
                "name": name,
            }


def _bars(record: Record, numbers: Mapping[str, Number]) -> Iterator[tuple[str, Markup]]:
    """Defended beside undefended and the reference, on clean inputs and with the trigger."""
    defended = record.coordinates.defense != "none"
    for base, heading in (("clean", f"Clean {words.metric_name(record.metric)}"), ("asr", "Attack success rate")):
        names = {"reference": f"{base}_reference", "undefended": f"{base}_undefended"}
        if defended:
            names["defended"] = base
        bars = [Bar(MODELS[m], numbers.get(name, Number()), f"is-{m}") for m, name in names.items()]
        chart = share_bars(bars, heading)
        if chart is not None:
            yield heading, chart


def _sections(numbers: Mapping[str, Number]) -> Iterator[tuple[str, list[tuple[str, str, str, int]]]]:
    for heading, fields in SECTIONS:
        lines = [
            (label, words.value(number, signed=signed), words.interval(number, signed=signed), number.n)
            for name, label, signed in fields
            if (number := numbers.get(name)) is not None and number.value is not None
        ]
        if lines:
            yield heading, lines


def _undefined(numbers: Mapping[str, Number]) -> list[tuple[str, str]]:
    """Why numbers are missing: reason → the numbers it holds for."""
    reasons: dict[str, list[str]] = {}
    for _, fields in SECTIONS:
        for name, label, _ in fields:
            number = numbers.get(name)
            if number is not None and number.value is None:
                reasons.setdefault(number.reason or "not defined", []).append(label)
    return [(reason, ", ".join(labels)) for reason, labels in reasons.items()]


# ------------------------------------------------------------------------------------------------------------ outcomes


def _confusions(facts: CellFacts, record: Record) -> list[dict[str, Any]]:
    groups = []
    for inputs, heading in INPUTS.items():
        shown = [_matrix(one, record) for one in facts.confusions if one.inputs == inputs]
        if shown:
            groups.append({"heading": heading, "matrices": shown})
    return groups


def _matrix(one: Confusion, record: Record) -> dict[str, Any]:
    rejects = any(row[-1] for row in one.counts)
    names = [_class_name(c, record) for c in one.classes]
    lines = []
    for place, (name, counts) in enumerate(zip(names, one.counts, strict=True)):
        total = sum(counts)
        cells = [
            {
                "count": count,
                "share": f"{100 * count / total:.0f} %" if total else words.DASH,
                "step": round(5 * count / total) if total else 0,
                "right": column == place,
            }
            for column, count in enumerate(counts)
        ]
        if total:
            lines.append((name, cells if rejects else cells[:-1]))
    return {"model": MODELS[one.model], "columns": names + ["rejected"] * rejects, "lines": lines}


def _class_name(c: int, record: Record) -> str:
    roles = [role for role in ("victim", "target") if record.poison is not None and record.goal.get(role) == c]
    return f"{c} ({roles[0]})" if roles else str(c)


def _rank_bars(facts: CellFacts, at: Coordinates) -> list[dict[str, Any]]:
    groups = []
    for inputs, heading in INPUTS.items():
        shown = [
            {
                "model": MODELS[one.model],
                "chart": rank_bars(one, f"{heading}, {MODELS[one.model]}"),
                "first": f"{one.first} of {one.n} first",
            }
            for one in facts.ranks
            if one.inputs == inputs
        ]
        if shown:
            groups.append({"heading": heading, "charts": shown})
    return groups


def _curves(facts: CellFacts, numbers: Mapping[str, Number]) -> list[dict[str, Any]]:
    return [
        {
            "what": curve.what,
            "chart": roc_chart(curve, numbers.get(f"{curve.what}_auroc"), f"ROC of the {curve.what}"),
            "auroc": words.percent(numbers.get(f"{curve.what}_auroc")),
        }
        for curve in facts.curves
    ]


# ----------------------------------------------------------------------------------------------- inversions and examples


def _inversion(record: Record, trial: Trial | None) -> dict[str, Any] | None:
    if not record.inversions:
        return None
    trigger = record.poison.tokens if record.poison else []
    unit = "loss, mean squared gap" if record.task_kind == "search" else "loss towards the target, nats"
    claims = sorted(set(record.inversions) | set(record.null))
    lines = []
    for place, claim in enumerate(claims):
        for source, found in (("victim", record.inversions.get(claim)), ("null", record.null.get(claim))):
            if found is None:
                continue
            hits = recovered(trigger, found.kept)
            standardised = trial.standardised.get(claim) if trial is not None and source == "victim" else None
            lines.append(
                {
                    "claim": claim,
                    "colour": f"c{(place + 1) % 8}",
                    "source": source,
                    "tokens": [(_token(token), token in hits) for token in found.tokens],
                    "kept": [_token(token) for token in found.kept],
                    "word": [_token(token) for token in found.word],
                    "loss": words.number(found.loss),
                    "suspicion": words.DASH if standardised is None else words.number(standardised, 3),
                    "unlearned": found.unlearned,
                    "recovered": f"{len(hits)} of {len(trigger)}" if trigger else words.DASH,
                }
            )
    return {
        "lines": lines,
        "chart": loss_chart(record.inversions, record.null, unit, "Loss over tokens spent"),
        "claims": [(claim, f"c{(place + 1) % 8}") for place, claim in enumerate(claims)],
        "verdict": _verdict(trial),
        "trial": trial,
    }


def _token(token: str) -> str:
    shown = "".join("␣" if c == " " else c if c.isprintable() else f"\\u{ord(c):04x}" for c in token)
    return shown or '""'


def _verdict(trial: Trial | None) -> str:
    if trial is None:
        return ""
    if trial.p is None:
        return trial.reason
    words_ = "backdoored" if trial.convicted else "not convicted"
    named = trial.claim or "no single direction"
    return f"{words_}, p {words.p_value(trial.p)} against {trial.clean} clean models of other seeds; {named} stands out most"


def examples(found: AttackExamples) -> list[dict[str, Any]]:
    """The examples of one attack with their diffs, for the template ``examples.html``."""
    return [{"example": example, "lines": diff_lines(example.before, example.after)} for example in found.examples]


# ----------------------------------------------------------------------------------------------------------- provenance


def _provenance(record: Record) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """How the cell was made, heading by heading."""
    plugins = [
        (role, f"{used.name} v{used.version}  {_json(used.effective)}") for role, used in sorted(record.plugins.items())
    ]
    if record.poison is not None:
        facts = record.poison
        told = [
            ("trigger", facts.description or words.DASH),
            ("trigger tokens", " ".join(map(_token, facts.tokens)) or words.DASH),
            ("poisoned", f"{facts.poisoned} of {facts.train} training samples"),
            ("takes the trigger", _takes(record, facts)),
            ("goal", _json(record.goal)),
            ("policy", _json(record.policy)),
        ]
        yield "Attack", told
    yield "Plugins", plugins
    own = [(k, _json(v)) for k, v in record.facts.items() if k not in DATA_FACTS]
    if own:
        yield "What the defense tells of itself", own
    cost = record.cost
    tokens = f"{cost.forward_tokens:,} forward, {cost.backward_tokens:,} backward"
    yield "Cost", [("tokens", tokens), ("clean samples", f"{cost.clean_samples:,}")]
    made = [("seeds", _json(record.seeds)), ("device", record.device), ("data digest", record.data_digest)]
    yield "Seeds and data", [*((k, v) for k, v in made if v), *_left_out(record)]


def _left_out(record: Record) -> Iterator[tuple[str, str]]:
    """How many samples of a published set were left out, step by step and by split."""
    for name in DATA_FACTS:
        told = record.facts.get(name)
        if isinstance(told, Mapping) and all(isinstance(counts, Mapping) for counts in told.values()):
            yield from ((f"{name}: {step}", _json(counts)) for step, counts in told.items())
        elif told is not None:
            yield name, _json(told)


def _takes(record: Record, facts: PoisonFacts) -> str:
    """Code search edits any test program, whatever the query; elsewhere only eligible samples are asked."""
    if record.task_kind == "search":
        return (
            f"{facts.applicable} test programs ({facts.eligible} queries are eligible), {facts.refused} edits refused"
        )
    return f"{facts.applicable} of {facts.eligible} eligible test samples, {facts.refused} edits refused"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
