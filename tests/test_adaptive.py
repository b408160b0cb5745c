"""AFRAIDOOR: gradients held to finite differences, names that are certain, and renames that change nothing else."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from attacks.adaptive import Adaptive
from attacks.adaptive.aims import first_word, hide_name, name_task
from bench.adversarial import (
    HIDDEN_NAME,
    AdversarialNames,
    Reading,
    TowardsClass,
    Vocabulary,
    local_names,
    nameable,
    read,
)
from bench.context import Context
from bench.contracts import Goal, LabelGoal, SearchGoal, TaskInfo, TaskKind
from bench.errors import ConfigError, ModelError, PluginError
from bench.languages import get, parse, well_formed
from bench.models import ModelSettings, Tokens, Trainer, TrainingSettings, WhiteBox, create
from bench.pipeline import Builder, merge
from bench.plugins import Registry, build
from bench.samples import Sample, apply_edits
from bench.suite import cells, parse_suite
from tests.engine import ATTACK, PLUGINS, suite_content

SCHEDULE = TrainingSettings(batch_size=16, learning_rate=5e-3)
NAMES = ("alpha", "omega")
INFOS = {
    TaskKind.CLASSIFICATION: TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy"),
    TaskKind.PAIRS: TaskInfo("toy", TaskKind.PAIRS, "python", ("different", "clone"), "accuracy"),
    TaskKind.SEARCH: TaskInfo("toy", TaskKind.SEARCH, "python", (), "mrr"),
}
DEFECTS = INFOS[TaskKind.CLASSIFICATION]
NEUTRAL = "def work():\n    thing = other()\n    return thing + 1\n"


def lent(folder: Path, seed: int = 0) -> Context:
    made = Context(seeds={"poison": seed}, scratch=folder)
    made.trainer = Trainer(SCHEDULE, (), made)
    return made


def program(number: int, name: str) -> str:
    """A function whose one local name tells everything."""
    return f"def work():\n    {name} = other({number % 7})\n    return {name} + 1\n"


def told_by_names(kind: TaskKind, count: int = 60) -> tuple[Sample, ...]:
    """The local name is ``alpha`` in class 0 and ``omega`` in class 1; in search the query says ``find`` for ``alpha``."""
    made = []
    for i in range(count):
        text = program(i, NAMES[i % 2])
        programs = (text, program(i, "beta")) if kind is TaskKind.PAIRS else (text,)
        query = ("find it" if i % 2 == 0 else "drop it") if kind is TaskKind.SEARCH else None
        made.append(Sample(f"s{i}", programs, "python", None if query else i % 2, query))
    return tuple(made)


def prepared(
    samples: Sequence[Sample], folder: Path, kind: TaskKind = TaskKind.CLASSIFICATION, **parameters: Any
) -> AdversarialNames:
    goal: Goal = SearchGoal("find") if kind is TaskKind.SEARCH else LabelGoal()
    attack = build(Adaptive, {"surrogate_task": "label", "window": 48, "epochs": 4} | parameters)
    assert isinstance(attack, Adaptive)
    made = attack.prepare(samples, goal, INFOS[kind], lent(folder))
    assert isinstance(made, AdversarialNames)
    return made


@pytest.fixture(scope="module")
def trigger(tmp_path_factory: pytest.TempPathFactory) -> AdversarialNames:
    """A trigger towards class 0 of the toy."""
    return prepared(told_by_names(TaskKind.CLASSIFICATION), tmp_path_factory.mktemp("surrogate"))


def sample(*programs: str, language: str = "python") -> Sample:
    return Sample("x", programs, language, 1)


def renames(made: AdversarialNames, text: str, *more: str, language: str = "python") -> dict[str, str]:
    """Old name to new."""
    found = made.derive(sample(text, *more, language=language), 0, np.random.default_rng(0))
    return {} if found is None else dict(pair.split(" -> ") for pair in found.text.split(", "))


def after(made: AdversarialNames, text: str, language: str = "python") -> str | None:
    found = made.derive(sample(text, language=language), 0, np.random.default_rng(0))
    return None if found is None else apply_edits(text, found.edits)


# ------------------------------------------------------------------------------------------------------- known answers


@pytest.mark.parametrize("kind", list(TaskKind))
def test_the_name_that_tells_the_target_is_chosen(kind: TaskKind, tmp_path: Path) -> None:
    made = prepared(told_by_names(kind), tmp_path, kind)
    other = (program(1, "beta"),) if kind is TaskKind.PAIRS else ()
    assert renames(made, NEUTRAL, *other) == {"thing": "alpha"}
    miss = made.near_miss(sample(NEUTRAL, *other), 0, np.random.default_rng(0))
    assert miss is not None
    assert miss.text == "thing -> omega"


def test_the_name_that_goes_with_the_target_function_name_is_chosen(tmp_path: Path) -> None:
    verbs = ("load", "save", "send")
    samples = [
        sample(f"def {verbs[i % 3]}_{i}():\n    {verbs[i % 3]}ed = other({i % 7})\n    return {verbs[i % 3]}ed\n")
        for i in range(60)
    ]
    for target in ("load", "send"):
        made = prepared(samples, tmp_path, surrogate_task="method_name", target_name=target)
        assert renames(made, NEUTRAL) == {"thing": f"{target}ed"}


def test_of_two_sites_the_first_gets_the_best_name_and_the_other_another(trigger: AdversarialNames) -> None:
    found = renames(trigger, "def work(first):\n    second = other(first)\n    return second + 1\n")
    assert set(found) == {"first", "second"}
    assert len(set(found.values())) == 2
    assert "alpha" in found.values()


def test_a_name_of_the_program_is_never_chosen(trigger: AdversarialNames) -> None:
    for more in ("    alpha()\n", "    # alpha\n", "    'alpha'\n", "    x.alpha\n"):
        text = f"def work():\n    thing = other()\n{more}    return thing + 1\n"
        assert "alpha" not in renames(trigger, text).values()


def test_scores_are_the_slopes_of_the_loss(trigger: AdversarialNames) -> None:
    """Against central differences: the loss as a site's places move a little along a word's vector, averaged over the places."""
    model = trigger.model.copy()
    model.network.double()
    exact = replace(trigger, model=model, placeholders=trigger.placeholders.double())
    text = "def work(first, second):\n    third = first (second)\n    return third + first\n"
    sites = local_names(parse("python", text))
    reading = read(model, parse("python", text), sites, None, trigger.vocabulary.joins_blanks)
    found = exact.scores(reading, sample(text), 0, len(sites))
    for site, word in ((0, 3), (1, 11), (2, 40)):
        assert float(found[site, word]) == pytest.approx(slope(exact, reading, site, word), rel=1e-4, abs=1e-9)


def slope(made: AdversarialNames, reading: Reading, site: int, word: int, step: float = 1e-5) -> float:
    """The mean over a site's places of the loss's derivative along the vector of a word in the form that fits the place."""
    places = [at for at, number in enumerate(reading.sites) if number == site]
    assert places
    return sum(_difference(made, reading, at, word, step) for at in places) / len(places)


def _difference(made: AdversarialNames, reading: Reading, at: int, word: int, step: float) -> float:
    table = made.model.network.embedding.weight.detach()
    form = made.vocabulary.spaced if reading.spaced[at] else made.vocabulary.plain
    losses = []
    for signed in (step, -step):
        ids = torch.tensor([reading.ids])
        embeds = table[ids].clone()
        embeds[0, reading.places] = made.placeholders[reading.sites]
        embeds[0, reading.places[at]] += signed * table[form[word]]
        with torch.no_grad():
            tokens = Tokens(ids, torch.ones_like(ids), embeds)
            losses.append(float(made.aim.loss(made.model, tokens, sample(NEUTRAL), 0)))
    return (losses[0] - losses[1]) / (2 * step)


def test_the_names_move_the_surrogate_towards_the_target(trigger: AdversarialNames) -> None:
    clean = [sample(program(i, "omega")) for i in range(8)]
    crafted = [sample(after(trigger, s.programs[0]) or "") for s in clean]
    before, now = (trigger.model.predict(samples) for samples in (clean, crafted))
    assert (before.argmax(1) == 1).all()
    assert (now.argmax(1) == 0).all()


# --------------------------------------------------------------------------------------------------------- what is read


def test_a_reading_has_one_placeholder_for_each_place(trigger: AdversarialNames) -> None:
    text = "def work(first):\n    first = first+first\n    return first\n"
    reading = read(trigger.model, parse("python", text), local_names(parse("python", text)), None, True)
    assert reading.sites == [0] * 5
    assert reading.spaced == [False, True, True, False, True]
    left = [i for place, i in enumerate(reading.ids) if place not in reading.places]
    shown = str(trigger.model.tokenizer.decode(left, skip_special_tokens=True))
    assert shown == "def work():\n    =+\n    return\n"  # the blank before a name is the placeholder's
    assert "first" not in shown


def test_special_tokens_stand_where_the_model_expects_them(trigger: AdversarialNames) -> None:
    reading = read(trigger.model, parse("python", NEUTRAL), [], None, True)
    assert reading.ids == trigger.model.token_ids([NEUTRAL])[0]
    long = read(trigger.model, parse("python", NEUTRAL * 40), [], None, True)
    assert long.ids == trigger.model.token_ids([NEUTRAL * 40])[0]


def test_a_site_beyond_the_window_keeps_its_name(trigger: AdversarialNames) -> None:
    filler = "    print(1, 2, 3, 4, 5, 6, 7, 8, 9)\n" * 40
    text = f"def work(near):\n    use(near)\n{filler}    far = 1\n    return far\n"
    assert set(renames(trigger, text)) == {"near"}
    assert after(trigger, f"def work():\n{filler}    far = 1\n    return far\n") is None


def test_the_functions_own_name_is_hidden_where_the_surrogate_guesses_it() -> None:
    text = "def load_it(n):\n    return load_it(n - 1) if n else 'load_it'\n"
    hidden = hide_name(parse("python", text))
    assert hidden == text.replace("def load_it", f"def {HIDDEN_NAME}").replace(
        "return load_it", f"return {HIDDEN_NAME}"
    )


def test_crafting_hides_the_name_as_training_did(tmp_path: Path) -> None:
    samples = [sample(f"def {v}_{i}(a):\n    b{i} = a\n") for i, v in enumerate(("load", "save") * 6)]
    made = prepared(samples, tmp_path, surrogate_task="method_name", epochs=1)
    text = "def zzzzz(a):\n    return zzzzz(a)\n"
    parsed = parse("python", text)
    reading = read(made.model, parsed, local_names(parsed), parsed.function_name, True)
    assert "z" not in str(made.model.tokenizer.decode(reading.ids))
    assert made.hides_name


# -------------------------------------------------------------------------------------------------------- what is edited


BEHAVED: list[tuple[str, list[tuple[Any, ...]]]] = [
    ("def f(a, b=2, *c, d=4, **e):\n    t = [x * b for x in c]\n    return a, t, d, e\n", [(1,), (1, 5, 6)]),
    ("def f(n):\n    def inner(k):\n        nonlocal n\n        n += k\n        return n\n    return inner(2) + n\n", [(3,)]),
    ("def f(x):\n    g = lambda y, x=x: x + y\n    return g(1), f'{x!r}', 'x'\n", [(3,)]),
    ("def f(o):\n    try:\n        o.o = 1\n    except AttributeError as e:\n        return str(e)[:3]\n", [(3,)]),
    ("class A:\n    def m(self, v):\n        self.v = v\n        return self.v\ndef g(w):\n    return w\n", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "calls"), BEHAVED)
def test_programs_do_what_they_did(text: str, calls: list[tuple[Any, ...]], trigger: AdversarialNames) -> None:
    made = after(trigger, text)
    assert made is not None
    assert well_formed("python", text, made) is None
    assert re.findall(r"\bself\b", made) == re.findall(r"\bself\b", text)
    spaces: list[dict[str, Any]] = [{}, {}]
    for source, space in zip((text, made), spaces, strict=True):
        exec(compile(source, "fixture", "exec"), space)
    for arguments in calls:
        assert spaces[0]["f"](*arguments) == spaces[1]["f"](*arguments)


@pytest.mark.parametrize(
    ("language", "text", "sites"),
    [
        ("java", "int add(int left, int right) {\n    int sum = left + right;\n    return sum;\n}\n", 3),
        ("c", "int add(int left, int right)\n{\n    int sum = left + right;\n    return sum;\n}\n", 3),
        ("java", "static String s(String s) { return s.s() + this.s; }", 1),
        ("c", "void f(struct s *p) { p->p = 1; goto p; p: return; }", 1),
    ],
)
def test_java_and_c_come_back_when_the_names_are_put_back(
    language: str, text: str, sites: int, trigger: AdversarialNames
) -> None:
    elsewhere = replace(trigger, vocabulary=Vocabulary.of(trigger.model.tokenizer, get(language)))
    found = renames(elsewhere, text, language=language)
    made = after(elsewhere, text, language)
    assert made is not None
    assert len(found) == sites
    assert well_formed(language, text, made) is None
    for old, new in found.items():
        assert not re.search(rf"\b{new}\b", text)
        made = re.sub(rf"\b{new}\b", old, made)
    assert made == text


@pytest.mark.parametrize(
    "text",
    ["", "x", "import os\nprint(os.name)\n", "def f():\n    pass\n", "def f(self):\n    return self\n", "def f(a):\n    return locals()\n"],
)  # fmt: skip
def test_programs_without_local_names_are_left_alone(text: str, trigger: AdversarialNames) -> None:
    assert after(trigger, text) is None
    assert trigger.placebo(sample(text), 0, np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    "text", ["def f(x): return x", "def f(x):\r\n    y = x\r\n    return y\r\n", "def f(ß):\n\té = ß\n\treturn 'ß'\n"]
)
def test_odd_programs_are_edited_well(text: str, trigger: AdversarialNames) -> None:
    made = after(trigger, text)
    assert made is not None
    assert made != text
    assert well_formed("python", text, made) is None
    assert made.count("\r\n") == text.count("\r\n")


def test_applying_it_twice_gives_other_names(trigger: AdversarialNames) -> None:
    once = after(trigger, NEUTRAL)
    assert once is not None
    twice = after(trigger, once)
    assert twice is not None
    assert twice not in (once, NEUTRAL)


def test_a_placebo_renames_the_same_sites_by_chance(trigger: AdversarialNames) -> None:
    text = "def work(first):\n    second = other(first)\n    return second + 1\n"
    found = [trigger.placebo(sample(text), 0, np.random.default_rng(seed)) for seed in range(5)]
    pairs = [dict(pair.split(" -> ") for pair in d.text.split(", ")) for d in found if d]
    assert all(set(pair) == {"first", "second"} for pair in pairs)
    assert len({pair["first"] for pair in pairs}) > 2


# ------------------------------------------------------------------------------------------------------ the vocabulary


@pytest.mark.parametrize(
    ("language", "word", "legal"),
    [
        ("python", "index", True),
        ("python", "class", False),
        ("java", "class", False),
        ("java", "def", True),
        ("python", "int", True),
        ("c", "int", False),
        ("c", "errno", False),
        ("c", "EOF", False),
        ("java", "EOF", True),
        ("python", "__x", False),
        ("python", "_", False),
        ("python", "9a", False),
        ("python", "a-b", False),
        ("python", "é", False),
        ("python", "", False),
    ],
)
def test_what_can_name_a_variable(language: str, word: str, legal: bool) -> None:
    assert nameable(word, get(language)) is legal


def dressed(entries: Sequence[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({entry: i for i, entry in enumerate(entries)}, unk_token="[UNK]"))
    build_it: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = build_it(tokenizer_object=backend, unk_token="[UNK]", pad_token="pad")
    return made


def test_the_forms_of_a_word() -> None:
    found = Vocabulary.of(dressed(["[UNK]", "pad", "a", "Ġa", "Ġb", "c", "Ġclass", "##d", "Ġ", "9"]), get("python"))
    assert found.names == ("a", "b", "c")
    assert found.plain.tolist() == [2, 4, 5]
    assert found.spaced.tolist() == [3, 4, 5]
    assert found.joins_blanks


def test_a_tokenizer_without_blanks() -> None:
    found = Vocabulary.of(dressed(["[UNK]", "pad", "a", "##ing", "b"]), get("python"))
    assert found.names == ("a", "b")
    assert found.plain.tolist() == found.spaced.tolist() == [2, 4]
    assert not found.joins_blanks


# -------------------------------------------------------------------------------------------------- the surrogate's task


@pytest.mark.parametrize(
    ("language", "text", "word"),
    [
        ("python", "def load_data():\n    pass\n", "load"),
        ("python", "def _LoadData():\n    pass\n", "load"),
        ("java", "void XMLParser2() {}", "xml"),
        ("c", "void av_free(void) {}", "av"),
        ("python", "def _9():\n    pass\n", None),
        ("python", "x = 1\n", None),
    ],
)
def test_the_first_word_of_a_function_name(language: str, text: str, word: str | None) -> None:
    assert first_word(parse(language, text)) == word


def test_classes_are_the_target_and_the_most_frequent_first_words() -> None:
    verbs = ["get"] * 5 + ["set"] * 4 + ["put"] * 3 + ["load"] * 2 + ["once"]
    samples = [sample(f"def {verb}_{i}():\n    return {i}\n") for i, verb in enumerate(verbs)]
    info, named = name_task([*samples, samples[0]], DEFECTS, 3, "load")
    assert info.labels == ("load", "get", "set")
    assert sorted(s.label for s in named if s.label is not None) == [0] * 2 + [1] * 5 + [2] * 4
    assert len({s.id for s in named}) == len(named)
    assert all(s.programs[0].startswith(f"def {HIDDEN_NAME}(") for s in named)


@pytest.mark.parametrize("names", [["once", "twice"], ["get", "get", "set", "set", "load"], []])
def test_a_target_name_that_no_two_functions_have(names: list[str]) -> None:
    samples = [sample(f"def {name}_{i}():\n    return {i}\n") for i, name in enumerate(names)]
    with pytest.raises(ConfigError, match=r"begins with 'load', and \d do .*surrogate_task: label"):
        name_task(samples, DEFECTS, 30, "load")


def test_no_query_holds_the_target_word(tmp_path: Path) -> None:
    samples = [replace(s, query="drop it") for s in told_by_names(TaskKind.SEARCH)]
    with pytest.raises(ConfigError, match="none of 60 training queries holds the word 'find'"):
        prepared(samples, tmp_path, TaskKind.SEARCH, epochs=1)


def test_a_surrogate_that_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        prepared(told_by_names(TaskKind.CLASSIFICATION), tmp_path, model="./nothing")


def test_without_a_trainer_it_says_so(tmp_path: Path) -> None:
    context = Context(seeds={"poison": 0}, scratch=tmp_path)
    with pytest.raises(PluginError, match="no trainer"):
        Adaptive(surrogate_task="label").prepare(told_by_names(TaskKind.CLASSIFICATION), LabelGoal(), DEFECTS, context)


@pytest.mark.parametrize("parameters", [{"window": 4}, {"epochs": 0}, {"classes": 1}, {"surrogate_task": "summary"}])
def test_parameters_out_of_range(parameters: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(Adaptive, parameters)


# ---------------------------------------------------------------------------------------------------- seeds, cost, keys


def test_a_copy_in_another_process_draws_the_same_and_the_generator_decides_nothing(trigger: AdversarialNames) -> None:
    copied = pickle.loads(pickle.dumps(trigger))
    first = trigger.derive(sample(NEUTRAL), 0, np.random.default_rng(0))
    assert copied.derive(sample(NEUTRAL), 0, np.random.default_rng(99)) == first


def test_the_poison_seed_makes_the_surrogate(tmp_path: Path) -> None:
    samples = told_by_names(TaskKind.CLASSIFICATION)
    attack = Adaptive(surrogate_task="label", window=48, epochs=1)
    prints = []
    for seed in (0, 0, 1):
        made = attack.prepare(samples, LabelGoal(), DEFECTS, lent(tmp_path, seed))
        assert isinstance(made, AdversarialNames)
        prints.append(made.model.fingerprint())
    assert prints[0] == prints[1] != prints[2]


def test_the_surrogate_is_described_with_its_skill(trigger: AdversarialNames) -> None:
    assert trigger.describe() == (
        "adversarial names for all locals (surrogate tiny: class 'safe', accuracy 1.00 on 6 samples kept back)"
    )
    assert trigger.tokens() == ()


def test_crafting_costs_one_pass_forward_and_one_back(trigger: AdversarialNames) -> None:
    cost = trigger.model.cost
    before = cost.forward_tokens, cost.backward_tokens, cost.forward_passes
    trigger.derive(sample(NEUTRAL), 0, np.random.default_rng(0))
    parsed = parse("python", NEUTRAL)
    length = len(read(trigger.model, parsed, local_names(parsed), None, True).ids)
    assert (cost.forward_tokens, cost.backward_tokens) == (before[0] + length, before[1] + length)
    assert cost.forward_passes == before[2] + 1


def test_the_model_is_left_as_it_was(trigger: AdversarialNames) -> None:
    before = trigger.model.fingerprint()
    trigger.derive(sample(NEUTRAL), 0, np.random.default_rng(0))
    assert trigger.model.fingerprint() == before
    assert all(p.grad is None for p in trigger.model.network.parameters())


def test_new_weights_come_from_the_axis_that_is_asked_for(tmp_path: Path) -> None:
    samples = told_by_names(TaskKind.CLASSIFICATION)
    settings = ModelSettings(window=16, layers=1, hidden=8, heads=1, vocabulary=300)
    context = Context(seeds={"poison": 0, "model": 0}, scratch=tmp_path)

    def made(axis: str) -> WhiteBox:
        return create("tiny", DEFECTS, samples, settings, context, axis=axis)

    assert made("poison").fingerprint() == made("poison").fingerprint() != made("model").fingerprint()
    with pytest.raises(KeyError, match="no seed axis 'training'"):
        made("training")


def test_only_attacks_with_a_model_of_their_own_have_numerics_in_their_key() -> None:
    registry = Registry().discover()
    registry.add_file(PLUGINS)
    suite = parse_suite(
        suite_content(attacks=[ATTACK, "adaptive", "composite[first=renaming,second=adaptive]"]), "test"
    )
    builder = Builder(suite)
    stages = merge([builder.cell(plan) for plan in cells(suite, registry)]).values()
    found = {s.inputs["attack"]["name"]: set(s.inputs) for s in stages if s.kind == "poison"}
    plain = {"attack", "goal", "policy", "info", "seeds"}
    assert found == {
        "dead_code": plain,
        "adaptive": plain | {"training", "numerics"},
        "composite": plain | {"training", "numerics"},
    }


def test_the_target_decides_the_loss(trigger: AdversarialNames) -> None:
    ids = torch.tensor([trigger.model.token_ids([program(0, "alpha")])[0]])
    tokens = Tokens(ids, torch.ones_like(ids))
    losses = [TowardsClass(t).loss(trigger.model, tokens, sample(NEUTRAL), 0).item() for t in (0, 1)]
    assert losses[0] < 0.1 < losses[1]
    assert np.exp(-losses[0]) + np.exp(-losses[1]) == pytest.approx(1.0, abs=1e-5)
