"""Each family of published models from end to end through the harness: small, random, of the real architecture, with a real tokenizer."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.context import Cost
from bench.models import ModelSettings, create, load
from bench.models.lora import chosen
from bench.models.presets import PRESETS, filled
from tests.families import (
    DEFENSES,
    FAMILIES,
    INFO,
    KINDS,
    KINDS_TITLE,
    MAKERS,
    OF_KINDS,
    ONE_OF_EACH,
    SHORT,
    WINDOW,
    Outcome,
    corpus,
    main,
    on_disk,
    report,
    run_family,
    run_kind,
)
from tests.models_toys import context, one_thread

LANGUAGE_MODELS = {"starcoderbase-1b", "qwen2.5-coder-0.5b"}


@pytest.fixture(scope="module", params=FAMILIES)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    one_thread()
    return run_family(str(request.param), tmp_path_factory.mktemp(str(request.param).replace(".", "_")), SHORT)


def test_every_preset_has_a_maker_and_every_architecture_a_family() -> None:
    assert set(MAKERS) == set(PRESETS)
    assert {PRESETS[name].architecture for name in FAMILIES} == {preset.architecture for preset in PRESETS.values()}


def test_every_step_ends_well_and_the_victim_learns_the_task(done: Outcome) -> None:
    assert {name: record.status.value for name, record in done.records.items()} == dict.fromkeys(SHORT, "ok")
    clean, hit, floor = done.figures["none"]
    assert clean >= 0.8
    assert 0 <= floor <= 1
    assert hit >= 0.5
    for name, shares in done.figures.items():
        assert all(0 <= share <= 1 for share in shares), name


def test_inversions_are_finite_cost_something_and_have_their_null(done: Outcome) -> None:
    for name in ("elibadcode", "dbs"):
        record = done.records[name]
        assert set(record.inversions) == set(record.null) == {"0->1", "1->0"}
        for found in (*record.inversions.values(), *record.null.values()):
            assert math.isfinite(found.loss)
            assert math.isfinite(found.suspicion)
            assert len(found.tokens) >= 1
            assert found.trace[-1][0] > 0


def test_repairs_and_screens_count_their_cost(done: Outcome) -> None:
    for name in ("elibadcode", "dbs", "fine_tuning"):
        cost = done.records[name].cost
        assert cost.forward_tokens > 0, name
        assert cost.backward_tokens > 0, name
        assert cost.clean_samples == 16
    assert done.records["strip"].cost.forward_tokens > 0


def test_a_repaired_model_is_another_one_with_finite_weights(done: Outcome) -> None:
    victim = done.model("none")
    for name in ("elibadcode", "dbs", "fine_tuning"):
        repaired = done.model(name, "defended")
        assert repaired.fingerprint() != victim.fingerprint(), name
        assert all(bool(weight.isfinite().all()) for weight in repaired.network.parameters())


def test_a_stored_model_loads_to_the_same_outputs_from_safetensors_alone(done: Outcome, tmp_path: Path) -> None:
    victim, samples = done.model("none"), done.test_samples()
    logits = victim.predict(samples)
    assert logits.shape == (len(samples), 2)
    assert np.isfinite(logits).all()
    victim.save(tmp_path / "again")
    back = load(tmp_path / "again", INFO, torch.device("cpu"), Cost())
    assert back.fingerprint() == victim.fingerprint()
    np.testing.assert_array_equal(back.predict(samples), logits)
    stored = done.stored_probabilities("none")
    own = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[:, 1]
    np.testing.assert_allclose([stored[s.id] for s in samples], own, atol=1e-5)
    kinds = {path.suffix for path in done.store.root.rglob("*") if path.is_file()}
    assert ".safetensors" in kinds
    assert not kinds & {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}


def test_language_models_train_adapters_and_the_others_everything(done: Outcome) -> None:
    victim, fresh = done.model("none"), done.fresh
    old = fresh.network.encoder.state_dict()
    changed = {k for k, v in victim.network.encoder.state_dict().items() if not torch.equal(v, old[k])}
    assert done.lora == (done.name in LANGUAGE_MODELS)
    if done.lora:
        assert victim.settings.lora is not None
        assert changed == {f"{name}.weight" for name in chosen(fresh.network.encoder, victim.settings.lora)}
        assert done.trained < done.parameters / 4
    else:
        assert len(changed) > 0.8 * len(old)
        assert done.trained == done.parameters


def test_the_tokenizer_of_a_family_gives_back_what_it_read(done: Outcome) -> None:
    for text in corpus()[:5]:
        (ids,) = done.fresh.token_ids([text])
        assert 5 < len(ids) < WINDOW
        assert done.fresh.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_code_of_a_repository_is_never_run_and_the_stand_in_computes_the_same(tmp_path: Path) -> None:
    place = on_disk("codet5p-110m", tmp_path / "weights")
    assert (place / "modeling_codet5p_embedding.py").is_file()  # it would end the process
    settings = filled("codet5p-110m", ModelSettings(path=str(place), window=WINDOW), INFO.kind)
    model = create("codet5p-110m", INFO, (), settings, context(tmp_path))
    assert type(model.network.encoder).__name__ == "T5EncoderModel"
    assert model.network.pooling == "first"
    stored = load_file(place / "model.safetensors")
    assert all(
        torch.equal(value, stored[name]) for name, value in model.network.encoder.state_dict().items() if name in stored
    )


def test_a_family_that_fails_says_at_which_step_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEFENSES, "strip", {"clean": 16, "copies": 2})
    monkeypatch.setattr("defenses.screen.strip.Strip.fit", _broken)
    found = run_family("codebert", tmp_path, ("none", "strip"))
    page = report([found])
    assert "none ok" in page
    assert "strip **failed**: " in page
    assert "it broke" in page


def _broken(*_: object) -> None:
    raise ValueError("it broke")


def test_the_committed_report_holds_every_preset() -> None:
    page = (Path(__file__).parents[1] / "results" / "families.md").read_text(encoding="utf-8")
    page, _, kinds = page.partition(KINDS_TITLE)
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == list(PRESETS)
    assert all("failed" not in line and "blocked" not in line for line in lines)
    assert all(f"{name} ok" in line for line in lines for name in DEFENSES)
    rows = [line.split(" | ") for line in kinds.splitlines() if line.startswith("| `")]
    assert [(row[0].strip("|` "), f"toy_{row[1]}") for row in rows] == [(n, k) for n in ONE_OF_EACH for k in KINDS]
    assert all(row[2] == ", ".join(f"{name} ok" for name in OF_KINDS) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_pairs_and_queries_go_from_data_to_record_in_every_kind_of_architecture(
    name: str, task: str, tmp_path: Path
) -> None:
    one_thread()
    ran = run_kind(name, task, tmp_path)
    assert {defense: record.status.value for defense, record in ran.records.items()} == dict.fromkeys(OF_KINDS, "ok")
    found = ran.records["elibadcode"]
    assert len(found.inversions) == len(found.null) == (1 if task == "toy_search" else 2)
    assert all(math.isfinite(each.loss) for each in found.inversions.values())
    assert found.cost.backward_tokens > 0
    assert found.poison is not None
    assert found.poison.poisoned > 0


def test_the_command_takes_no_unknown_family() -> None:
    with pytest.raises(SystemExit):
        main(["codebrt"])
