"""Backdoor token unlearning: find the tokens whose embeddings learn suspiciously fast, and blank what they learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from bench.context import Context
from bench.contracts import Known, Needs, TaskInfo, TrainingRule
from bench.errors import ModelError, PluginError
from bench.models.handles import WhiteBox
from bench.models.training import Trainer


class Shallow(nn.Module):
    """An encoder that is nothing but the embedding table; the rows of some tokens count as zero."""

    def __init__(self, table: nn.Embedding, left_out: Sequence[int]) -> None:
        super().__init__()
        self.table = table
        self.config = SimpleNamespace(
            hidden_size=table.embedding_dim, model_type="shallow", is_encoder_decoder=False, pad_token_id=None
        )
        self.kept: Tensor
        self.register_buffer("kept", torch.ones(table.num_embeddings, device=table.weight.device), persistent=False)
        self.kept[list(left_out)] = 0.0

    def get_input_embeddings(self) -> nn.Embedding:
        """The table."""
        return self.table

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """Token vectors, in the form that encoders give."""
        return SimpleNamespace(last_hidden_state=self.table(input_ids) * self.kept[input_ids][..., None])


def shallow(model: WhiteBox, left_out: Sequence[int] = ()) -> WhiteBox:
    """A copy of a model without its layers: the head scores the mean embedding."""
    copy = model.copy()
    copy.network.encoder = cast(Any, Shallow(copy.network.embedding, left_out))
    copy.network.pooling = "mean"
    return copy


def fastest(before: Tensor, after: Tensor, count: int, spared: Sequence[int]) -> list[int]:
    """The ``count`` tokens whose embeddings (V, d) moved farthest (Euclidean); ties to the lower id, ``spared`` never."""
    moved = (after - before).double().norm(dim=1).cpu().numpy()
    moved[list(spared)] = -1.0
    order = np.argsort(-moved, kind="stable")[:count]
    return [int(token) for token in order if moved[token] >= 0]


def blanked(initial: Tensor, trained: Tensor, tokens: Sequence[int], blank: Tensor) -> Tensor:
    """The trained embeddings (V, d) in which the tokens' changed coordinates are those of ``blank`` (d,).

    Changed is what moved farther than the norm of the whole table's change divided by its number of rows.
    """
    border = (trained - initial).norm() / len(trained)
    result, rows = trained.clone(), torch.tensor(sorted(tokens), dtype=torch.long, device=trained.device)
    changed = (trained[rows] - initial[rows]).abs() >= border
    result[rows] = torch.where(changed, blank, trained[rows])
    return result


@dataclass(frozen=True, kw_only=True)
class BTU(TrainingRule):
    """Trains as always, but first looks which tokens' embeddings learn fastest, and afterwards takes from those what they learnt.

    Source: Jiang, Lyu, Li, Ma, "Backdoor Token Unlearning: Exposing and Defending Backdoors in Pretrained Language Models", AAAI 2025
    (arXiv 2501.03272); read from the abstract and the released code. Three looks at the training set, an epoch each, from the
    initial weights: the table with a classifier over its mean; the same without the tokens found; and the whole network with
    nothing but the table trained. Each names the 0.05 % of the vocabulary whose rows moved farthest (special tokens are spared).
    The model is then trained as always; in the rows of all named tokens every coordinate that moved more than the norm of the whole
    table's change divided by its number of rows (in practice: nearly every one that moved) takes the padding token's value; and one
    epoch on clean samples mends the rest.

    It needs the table as it was before training, so that it is a rule for training and no repair of a finished model.

    What is a port: the second look blanks the tokens where the release deletes their text, which in a program would take pieces out
    of other words; the harness's trainer and its rate (the release: AdamW at 2e-5 for BERT) and the task's own head, so that pairs
    and code search work as well; a model without a padding token takes the mean embedding for it. The release tunes on 20 % of the
    training data, held clean; ``clean`` is that budget here. Identifiers that tell a class are fast learners too: the price is paid
    in clean accuracy.

    Attributes:
        clean: number of clean samples for the last step (0 leaves it out).
        share: of the vocabulary that each look names, at least one token.
        exposing: epochs of each look.
        tuning: epochs on the clean samples.
        learning_rate: of the looks and of tuning; ``None`` takes the one of the suite's training settings.
    """

    name = "btu"
    summary = "blanks what the fastest-learning token embeddings learnt"
    paper = (
        "Jiang et al.: Backdoor Token Unlearning: Exposing and Defending Backdoors in Pretrained Language Models. "
        "AAAI 2025"
    )
    # The toy has 48 clean samples, which makes this the number of tuning steps that the default 300 give.
    toy_parameters: ClassVar[Mapping[str, object]] = {"tuning": 6}

    clean: Annotated[int, Field(ge=0)] = 300
    share: Annotated[float, Field(gt=0, le=1)] = 0.0005
    exposing: Annotated[int, Field(ge=1)] = 1
    tuning: Annotated[int, Field(ge=0)] = 1
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    @property
    def needs(self) -> Needs:
        """The training set, and ``clean`` samples."""
        return Needs(clean=self.clean, training_set=True)

    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        """Look, train, blank, mend.

        Raises:
            ModelError: the model is trained with adapters, which leave the table as it was.
            PluginError: there is no trainer.
        """
        if context.trainer is None:
            raise PluginError("training/btu was given no trainer (context.trainer)")
        if model.settings.lora is not None:
            raise ModelError(
                f"training/btu takes back what the embeddings learnt, and adapters (lora) leave those of {model.name!r} as they were: "
                "there is nothing to take. Train it without lora, or leave this defense out for it (only: in the suite)."
            )
        tokens = self.exposed(model, known, context.trainer)
        trained = context.trainer.fit(model, known.training, axis="training")
        with torch.no_grad():
            initial, table = model.network.embedding.weight, trained.network.embedding.weight
            table.copy_(blanked(initial, table, tokens, blank_of(trained)))
        if not self.clean or not self.tuning:
            return trained
        return context.trainer.fit(
            trained,
            known.clean,
            axis="defense",
            epochs=self.tuning,
            learning_rate=self.learning_rate,
            select_best=False,
        )

    def exposed(self, model: WhiteBox, known: Known, trainer: Trainer) -> list[int]:
        """The tokens that any of the three looks names, sorted."""
        first = self.look(model, shallow(model), known, trainer)
        second = self.look(model, shallow(model, first), known, trainer, spared=first)
        third = self.look(model, model, known, trainer)
        return sorted({*first, *second, *third})

    def look(
        self, model: WhiteBox, learner: WhiteBox, known: Known, trainer: Trainer, spared: Sequence[int] = ()
    ) -> list[int]:
        """The tokens whose rows move farthest while a learner is trained."""
        trained = trainer.fit(
            learner,
            known.training,
            axis="defense",
            epochs=self.exposing,
            learning_rate=self.learning_rate,
            parameters="embedding" if learner is model else "all",
            select_best=False,
        )
        before, after = model.network.embedding.weight.detach(), trained.network.embedding.weight.detach()
        count = max(1, round(self.share * len(before)))
        special = [int(token) for token in model.tokenizer.all_special_ids]
        return fastest(before, after, count, [*special, *spared])


def blank_of(model: WhiteBox) -> Tensor:
    """The padding token's embedding (d,), or the mean one where a tokenizer has no padding token."""
    weight = model.network.embedding.weight
    pad = cast("int | None", model.tokenizer.pad_token_id)
    return weight[pad] if pad is not None else weight.mean(0)
