"""AttDef and RAP, which read gradients: attributions add up, weights stay, and a token that decides everything is found."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2Model

from bench.context import Context, Cost
from bench.contracts import Action, Known, Screen, TaskInfo, TaskKind
from bench.errors import ConfigError, ModelError
from bench.models import ModelSettings, WhiteBox, create
from bench.models.encoders import make_network, train_tokenizer
from bench.models.tokens import Tokens, pad
from bench.plugins import build
from bench.samples import Sample
from defenses.screen.attdef import AttDef, FittedAttDef
from defenses.screen.rap import RAP, _with_token, falls_of, rare_word, with_room
from defenses.screening.attribution import answers_of, integrated_gradients, leaf_shares
from defenses.screening.confidence import OfQueries, halves
from defenses.screening.deleting import Source
from defenses.screening.thresholds import conformal_threshold
from tests.causal_toys import save
from tests.models_toys import INFOS, SMALL, TOYS, context, one_thread

KINDS = tuple(TaskKind)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[TaskKind, WhiteBox]:
    """Untrained models of each kind, with a head that says something."""
    one_thread()
    found = {}
    for kind in KINDS:
        model = create("tiny", INFOS[kind], TOYS[kind](24), SMALL, context(tmp_path_factory.mktemp("m")))
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.mul_(3.0)
        found[kind] = model
    return found


def fit(plugin: Screen, model: WhiteBox, clean: tuple[Sample, ...], seed: int = 0) -> Any:
    lent = Context(seeds={"defense": seed}, scratch=Path("unused"))
    return plugin.fit(Known(plugin.needs, _clean=clean, _model=model), model.info, lent)


def hidden(samples: tuple[Sample, ...]) -> list[Sample]:
    return [Sample(s.id, s.programs, s.language, None, s.query) for s in samples]


class Keyed(torch.nn.Module):
    """A network whose answer is class 1 where one token stands and class 0 everywhere else; its embeddings are one-hot."""

    def __init__(self, token: int, words: int) -> None:
        super().__init__()
        self.kind, self.token = TaskKind.CLASSIFICATION, token
        self.embedding = torch.nn.Embedding.from_pretrained(torch.eye(words))

    def vector(self, tokens: Tokens) -> torch.Tensor:
        rows = self.embedding(tokens.ids) if tokens.embeds is None else tokens.embeds
        return (rows[..., self.token] * tokens.mask).sum(1, keepdim=True)

    def scores(self, vectors: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(vectors), 9.0 * (vectors - 0.5)], dim=1)


# --------------------------------------------------------------------------------------------------------------- attribution


@pytest.mark.parametrize("kind", KINDS)
def test_attributions_add_up_to_what_the_program_changes(kind: TaskKind, models: dict[TaskKind, WhiteBox]) -> None:
    model, samples = models[kind], TOYS[kind](4)
    queries = model.embed_queries(samples).astype(np.float64) if kind is TaskKind.SEARCH else None
    answers = answers_of(model, queries)
    sides = [
        pad(model.token_ids([s.programs[side] for s in samples]), model.pad_id)
        for side in range(2 if kind is TaskKind.PAIRS else 1)
    ]
    values = integrated_gradients(model, answers, sides, 100)
    with torch.no_grad():
        real = answers([model.network.vector(side) for side in sides])
        rows = [
            Tokens(side.ids, side.mask, model.network.embedding(torch.full_like(side.ids, model.pad_id)))
            for side in sides
        ]
        empty = answers([model.network.vector(row) for row in rows])
    answer = real.argmax(1, keepdim=True)
    expected = (real.gather(1, answer) - empty.gather(1, answer))[:, 0]
    assert sum(side.sum(1) for side in values).numpy() == pytest.approx(expected.numpy(), rel=0.02, abs=0.01)
    assert all(bool((value[side.mask == 0] == 0).all()) for value, side in zip(values, sides, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_shares_add_up_to_one_and_do_not_depend_on_the_batch(kind: TaskKind, models: dict[TaskKind, WhiteBox]) -> None:
    model, samples = models[kind], TOYS[kind](5)
    queries = model.embed_queries(samples).astype(np.float64) if kind is TaskKind.SEARCH else None
    answers = answers_of(model, queries)
    sources = [[Source.of(s.language, text) for text in s.programs] for s in samples]
    together = leaf_shares(model, answers, samples, sources, 4)
    for i, shares in enumerate(together):
        assert [len(values) for values in shares] == [len(source.leaves) for source in sources[i]]
        assert sum(float(values.sum()) for values in shares) == pytest.approx(1.0)
        (alone,) = leaf_shares(model, answers, samples[i : i + 1], sources[i : i + 1], 4)
        for one, other in zip(shares, alone, strict=True):
            assert one == pytest.approx(other, abs=1e-3)


# -------------------------------------------------------------------------------------------------------------------- AttDef


def test_the_word_that_decides_is_masked(models: dict[TaskKind, WhiteBox]) -> None:
    model, clean = models[TaskKind.CLASSIFICATION].copy(), TOYS[TaskKind.CLASSIFICATION](40)
    (token,) = model.tokenizer.backend_tokenizer.encode(" gamma", add_special_tokens=False).ids
    model.network = Keyed(token, len(model.tokenizer))  # type: ignore[assignment]
    screen: FittedAttDef = fit(AttDef(steps=8), model, clean)
    object.__setattr__(screen, "threshold", 0.9)  # the threshold is not the question here
    sample = Sample("s", ("def work(alpha):\n    beta = alpha\n    x = gamma + 1\n    return beta\n",), "python")
    (verdict,) = screen.screen([sample])
    assert verdict.score > 0.9
    assert verdict.rewritten is not None
    assert verdict.rewritten.programs[0] == sample.programs[0].replace("gamma", "<mask>")


def test_a_model_without_a_mask_token_deletes(models: dict[TaskKind, WhiteBox]) -> None:
    info = INFOS[TaskKind.CLASSIFICATION]
    words = train_tokenizer([s.programs[0] for s in TOYS[TaskKind.CLASSIFICATION](24)], 320)
    words.mask_token = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder: Any = GPT2Model(GPT2Config(vocab_size=len(words), n_positions=64, n_embd=16, n_layer=1, n_head=2))
        network = make_network(encoder, info, ModelSettings(window=48), "last")
    model = WhiteBox("gpt2", info, network, words, ModelSettings(window=48), torch.device("cpu"), Cost())
    screen: FittedAttDef = fit(AttDef(steps=2), model, TOYS[TaskKind.CLASSIFICATION](20))
    object.__setattr__(screen, "threshold", 0.02)
    (sample,) = hidden(TOYS[TaskKind.CLASSIFICATION](1))
    (verdict,) = screen.screen([sample])
    assert verdict.rewritten is not None
    assert len(verdict.rewritten.programs[0]) < len(sample.programs[0])
    assert "<mask>" not in verdict.rewritten.programs[0]


def test_the_threshold_comes_from_clean_shares(models: dict[TaskKind, WhiteBox]) -> None:
    model, clean = models[TaskKind.CLASSIFICATION], TOYS[TaskKind.CLASSIFICATION](39)
    screen: FittedAttDef = fit(AttDef(steps=2, false_positive_rate=0.1), model, clean)
    scores = sorted(v.score for v in screen.screen(list(clean)))
    assert screen.threshold == pytest.approx(scores[35], rel=1e-3), "36th of 39: (39 + 1) * 0.9"
    assert fit(AttDef(steps=2), model, clean[:10]).threshold == math.inf


def test_a_validator_lets_only_surprising_inputs_be_examined(models: dict[TaskKind, WhiteBox], tmp_path: Path) -> None:
    model, clean = models[TaskKind.CLASSIFICATION], TOYS[TaskKind.CLASSIFICATION](30)
    folder = save("roberta", tmp_path / "masked", positions=128)
    screen: FittedAttDef = fit(AttDef(steps=2, validator=str(folder), validator_rate=0.3), model, clean)
    assert screen.validator is not None
    suspected = [screen.validator.suspects(sample) for sample in clean]
    assert 1 <= sum(suspected) <= 9
    for sample, suspects, verdict in zip(clean, suspected, screen.screen(list(clean)), strict=True):
        assert (verdict.score > 0) == suspects, sample.id
        assert suspects or verdict.action is Action.ACCEPT
    with pytest.raises(ModelError, match="does not exist"):
        fit(AttDef(validator=str(tmp_path / "nothing")), model, clean)


def test_in_search_no_threshold_comes_from_a_program_whose_own_query_is_an_answer(
    models: dict[TaskKind, WhiteBox],
) -> None:
    model, clean = models[TaskKind.SEARCH], TOYS[TaskKind.SEARCH](24)
    asked, setting = halves(clean)
    screen: FittedAttDef = fit(AttDef(steps=2, false_positive_rate=0.2), model, clean)
    queries = OfQueries(model, asked).queries
    shares = leaf_shares(
        model, answers_of(model, queries), setting, [[Source.of("python", s.programs[0])] for s in setting], 2
    )
    largest = [float(values.max()) for (values,) in shares]
    assert screen.threshold == pytest.approx(conformal_threshold(largest, 0.2), rel=1e-3)


# ----------------------------------------------------------------------------------------------------------------------- RAP


@pytest.mark.parametrize("kind", [TaskKind.CLASSIFICATION, TaskKind.PAIRS])
def test_the_learnt_token_lowers_clean_confidence_as_taught(kind: TaskKind, models: dict[TaskKind, WhiteBox]) -> None:
    model, clean = models[kind], TOYS[kind](40)
    before = model.fingerprint()
    right = tuple(
        Sample(s.id, s.programs, s.language, int(a), None)
        for s, a in zip(clean, model.predict(clean).argmax(1), strict=True)
    )
    plain = fit(RAP(epochs=0), model, right)
    learnt = fit(RAP(epochs=40, learning_rate=5e-2, low=0.1, high=0.3), model, right)
    of_plain, of_learnt = (falls_of(model, screen.tokens, right) for screen in (plain, learnt))
    # Within the rare word's norm the toy models cannot be shaken as far as they are taught to be, but that way.
    assert np.mean((of_learnt > 0.05) & (of_learnt < 0.35)) > 0.5 > np.mean((of_plain > 0.05) & (of_plain < 0.35))
    assert np.abs(of_learnt - 0.2).mean() < 0.7 * np.abs(of_plain - 0.2).mean()
    assert learnt.tokens.norm(dim=1).numpy() == pytest.approx(plain.tokens.norm(dim=1).numpy(), rel=1e-4)
    assert model.fingerprint() == before
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_the_token_steps_along_all_gradients_so_far_and_keeps_its_norm(models: dict[TaskKind, WhiteBox]) -> None:
    """Two epochs of one batch, worked by hand."""
    model, clean = models[TaskKind.CLASSIFICATION], TOYS[TaskKind.CLASSIFICATION](24)
    answers = model.predict(clean).argmax(1)
    known = tuple(Sample(s.id, s.programs, s.language, int(a)) for s, a in zip(clean, answers, strict=True))
    teaching = [sample for i, sample in enumerate(known) if i // 2 % 2 == 0]
    label = int(teaching[0].label or 0)
    rows = model.token_ids([s.programs[0] for s in teaching if s.label == label])
    word = model.network.embedding.weight.detach()[
        rare_word(model, [model.token_ids([s.programs[0] for s in teaching])])
    ]
    plugin = RAP(epochs=2, learning_rate=0.1, low=0.4, high=0.5)
    token, total = word.clone(), torch.zeros_like(word)
    for _ in range(2):
        total = total + plugin._slope(model, [rows], label, token)
        token = token - 0.1 * total
        token = token * word.norm() / token.norm()
    assert not torch.allclose(token, word, atol=1e-3)
    assert torch.allclose(fit(plugin, model, known).tokens[label], token, atol=1e-5)


def test_the_rare_word_is_the_last_of_those_that_the_rows_hold_least_often(models: dict[TaskKind, WhiteBox]) -> None:
    model = models[TaskKind.CLASSIFICATION]
    words = [i for i in range(model.tokenizer.vocab_size) if i not in model.tokenizer.all_special_ids]
    assert rare_word(model, []) == words[-1]
    assert rare_word(model, [[words[-2:], words[-1:]], [words[:-3]]]) == words[-3]
    assert rare_word(model, [[words, words[1:]]]) == words[0]


def test_a_token_in_a_full_window_costs_the_last_ordinary_token() -> None:
    special = {0, 1, 2}
    assert with_room([0, 7, 8, 9, 2], 1, special, 6) == [0, 1, 7, 8, 9, 2]
    assert with_room([0, 7, 8, 9, 2], 1, special, 5) == [0, 1, 7, 8, 2]
    assert with_room([6, 7, 8], 1, special, 3) == [6, 1, 7], "nothing closes this row"
    assert with_room([0, 2], 1, special, 2) == [0, 1], "nothing ordinary"
    assert with_room([], 1, special, 2) == [1]


def test_pooling_by_the_last_token_reads_what_closes_a_full_window(models: dict[TaskKind, WhiteBox]) -> None:
    """A program cut by the window, and the row of ids that should be read in its place, through a model that pools ``last``."""
    small = SMALL.model_copy(update={"pooling": "last", "window": 16})
    scratch = Context(seeds={"model": 0}, scratch=Path("unused"))
    model = create("tiny", INFOS[TaskKind.CLASSIFICATION], TOYS[TaskKind.CLASSIFICATION](24), small, scratch)
    (row,) = model.token_ids([TOYS[TaskKind.CLASSIFICATION](1)[0].programs[0] * 5])
    assert len(row) == 16
    word = model.network.embedding.weight.detach()[9]
    mixed = _with_token(model, [[row]], word[None])
    with torch.no_grad():
        expected = model.network.logits(pad([[row[0], 9, *row[1:-2], row[-1]]], model.pad_id)).softmax(1)
        without_end = model.network.logits(pad([[row[0], 9, *row[1:-1]]], model.pad_id)).softmax(1)
    assert mixed.detach().numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    assert mixed.detach().numpy() != pytest.approx(without_end.numpy(), abs=1e-6)


def test_what_the_token_cannot_shake_is_rejected(models: dict[TaskKind, WhiteBox]) -> None:
    model, clean = models[TaskKind.CLASSIFICATION], TOYS[TaskKind.CLASSIFICATION](40)
    screen = fit(RAP(epochs=2), model, clean)
    falls = falls_of(model, screen.tokens, clean)
    verdicts = screen.screen(hidden(clean))
    assert [v.score for v in verdicts] == pytest.approx((-falls).tolist(), abs=1e-6)
    rejected = [v.action is Action.REJECT for v in verdicts]
    assert rejected == [-fall > screen.threshold for fall in falls]
    alone = [screen.screen([sample])[0] for sample in hidden(clean)[:5]]
    assert [v.score for v in alone] == pytest.approx([v.score for v in verdicts[:5]], abs=1e-5)


def test_the_token_is_the_same_for_the_same_seed(models: dict[TaskKind, WhiteBox]) -> None:
    model, clean = models[TaskKind.CLASSIFICATION], TOYS[TaskKind.CLASSIFICATION](24)
    one, same = (fit(RAP(batch_size=4), model, clean).tokens for _ in range(2))
    assert torch.equal(one, same)
    assert fit(RAP(), model, clean[:8]).threshold == math.inf


def test_search_has_no_class_to_lower() -> None:
    assert RAP().not_applicable(TaskInfo("s", TaskKind.SEARCH, "python", (), "mrr")) is not None


# ------------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("plugin", [AttDef(steps=1), RAP(epochs=1)])
def test_a_model_that_gives_no_numbers_is_a_clear_error(plugin: Screen, models: dict[TaskKind, WhiteBox]) -> None:
    broken = models[TaskKind.CLASSIFICATION].copy()
    with torch.no_grad():
        next(iter(broken.network.parameters())).fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        fit(plugin, broken, TOYS[TaskKind.CLASSIFICATION](24))


@pytest.mark.parametrize("plugin", [AttDef(steps=1), RAP(epochs=1)])
@pytest.mark.parametrize("text", ["", "\n", "x", "def f(:\n  (((", "é = '名前'\n" * 300])
def test_odd_programs_get_a_verdict(text: str, plugin: Screen, models: dict[TaskKind, WhiteBox]) -> None:
    screen = fit(plugin, models[TaskKind.CLASSIFICATION], TOYS[TaskKind.CLASSIFICATION](24))
    object.__setattr__(screen, "threshold", -1e9)
    (verdict,) = screen.screen([Sample("odd", (text,), "python")])
    assert math.isfinite(verdict.score)
    assert verdict.rewritten is None or verdict.rewritten.programs[0].strip()
    assert screen.screen([]) == []


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [(AttDef, {"steps": 0}), (AttDef, {"validator": ""}), (RAP, {"low": 0.4}), (RAP, {"learning_rate": 0})],
)
def test_impossible_parameters_are_refused(cls: type[Screen], wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(cls, wrong)
