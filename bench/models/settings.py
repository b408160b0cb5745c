"""What a suite may say about a model and about its training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

Pooling = Literal["auto", "first", "mean", "last"]
"""How token vectors become one vector.

``first`` takes the first token (CLS), ``mean`` averages over the real tokens, ``last`` takes the last real token, which for an
encoder-decoder is the decoder's vector at the closing ``</s>`` (as CodeT5's published defect head does). ``auto``: ``last``
for an encoder-decoder and for a decoder alone (its first token sees nothing of the program, its last one all of it), ``mean`` for
code search, ``minilm`` and ``tiny``, otherwise ``first``.
"""


class LoraSettings(BaseModel):
    """Low-rank adapters (:mod:`bench.models.lora`).

    Rank, scale and dropout are those that EliBadCode's release offers for StarCoder; which layers is the LoRA paper's choice.

    Attributes:
        rank: of each adapter.
        alpha: an adapter's product is scaled by ``alpha / rank``.
        dropout: of an adapter's input, in training.
        targets: names of the linear layers that get an adapter, as their modules are called (the last part, or more of the
            path); ``auto`` takes queries and values (:data:`bench.models.lora.TARGETS`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.05, ge=0.0, lt=1.0)
    targets: Literal["auto"] | Annotated[tuple[str, ...], Field(min_length=1)] = "auto"


class ModelSettings(BaseModel):
    """Architecture and window of a model.

    Attributes:
        window: tokens of a program that the model sees, special tokens included.
        query_window: tokens of a natural-language query that it sees, special tokens included.
        pooling: see :data:`Pooling`.
        pair_head: how two program vectors u, v are joined: ``difference`` gives (u, v, |u - v|, u * v),
            ``concat`` gives (u, v) as published with CodeXGLUE's clone detection baseline.
        layers: of ``tiny``.
        hidden: width of ``tiny``.
        heads: attention heads of ``tiny``.
        vocabulary: entries of the byte-level BPE that ``tiny`` trains.
        dropout: of the head, and of the hidden layers of ``tiny``.
        revision: full commit of a model named on the Hugging Face hub; required there, ignored elsewhere.
        batch_tokens: padded tokens in one batch at inference.
        lora: train low-rank adapters and the head instead of all weights; ``true`` takes the defaults. The stored model has its
            adapters merged into its weights; this says that it was trained so.
        path: a local folder with the weights of a preset (:mod:`bench.models.presets`); any other model is named by its folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(default=128, ge=4)
    query_window: int = Field(default=32, ge=4)
    pooling: Pooling = "auto"
    pair_head: Literal["difference", "concat"] = "difference"
    layers: int = Field(default=2, ge=1)
    hidden: int = Field(default=128, ge=4)
    heads: int = Field(default=4, ge=1)
    vocabulary: int = Field(default=8000, ge=300)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    revision: str | None = None
    batch_tokens: int = Field(default=8192, ge=1)
    lora: LoraSettings | None = None
    path: str | None = Field(default=None, min_length=1)

    @field_validator("lora", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return ({} if value else None) if isinstance(value, bool) else value

    @model_serializer(mode="wrap")
    def _stated(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """It stands in the keys of stored results: what came later is left out where it has its default."""
        row: dict[str, Any] = handler(self)
        return {name: value for name, value in row.items() if value is not None or name not in ("lora", "path")}


class TrainingSettings(BaseModel):
    """How a model is trained (AdamW, linear decay after a linear warm-up).

    Attributes:
        epochs: passes over the training split.
        batch_size: samples in a step.
        accumulation: least number of equal pieces in which a step's batch goes through the model, one after the other (their
            gradients are added up), for batches that do not fit into memory. A batch that it does not divide is cut into more: 12
            samples with ``accumulation: 8`` go one by one. Not for code search.
        learning_rate: peak; ``None`` means 5e-4 for ``tiny``, which starts from nothing, 5e-5 for pretrained models, and 2e-4 where
            adapters are trained (``lora``).
        warmup: share of all steps in [0, 1).
        weight_decay: of AdamW; not applied to biases and layer norms.
        max_grad_norm: gradients are clipped to this norm; 0 switches clipping off.
        scale: code search: cosines are multiplied by it before the in-batch softmax.
        retry_diverged: train once more, with the next seed of the axis ``training``, where the weights that come out, or a loss or
            metric on the way to them, are not finite; the record then says so. Without it such a training fails, and so does one that
            diverges again. It concerns trainings alone: what a repair or a supplier trains is that method's business.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=3, ge=0)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    warmup: float = Field(default=0.1, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.01, ge=0.0)
    max_grad_norm: float = Field(default=1.0, ge=0.0)
    scale: float = Field(default=20.0, gt=0)
    accumulation: int = Field(default=1, ge=1)
    retry_diverged: bool = False

    @model_serializer(mode="wrap")
    def _stated(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """It stands in the keys of stored results: what came later is left out where it has its default."""
        row: dict[str, Any] = handler(self)
        if not self.retry_diverged:
            row.pop("retry_diverged", None)
        if self.accumulation == 1:
            row.pop("accumulation", None)
        return row
