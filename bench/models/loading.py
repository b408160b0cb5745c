"""Language models with their own heads, from any folder or hub name: safetensors alone, pinned revisions, no code of theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from bench.errors import ModelError
from bench.models.encoders import check_commit, check_folder, fast_tokenizer, special_tokens
from bench.models.hush import quiet


def load_language_model(
    name: str, revision: str | None, maker: Any, fits: Callable[[PretrainedConfig], bool], kind: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A model and its fast tokenizer, without truncation or padding of its own.

    Args:
        name: a folder that holds ``config.json``, ``*.safetensors`` and ``tokenizer.json``, or a Hugging Face hub name.
        revision: full commit of a hub model; required there, ignored for a folder.
        maker: transformers' class that makes it (``AutoModelForCausalLM`` …).
        fits: whether a configuration is of the right kind.
        kind: that kind in words.

    Raises:
        ModelError: it does not load, it is of another kind, or it has no weights as safetensors.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() or name.startswith((".", "/", "~")):
        check_folder(folder)
        return _load(str(folder), {"local_files_only": True}, f"model folder {folder}", maker, fits, kind)
    if revision is None:
        raise ModelError(
            f"{name!r} is no folder here. If it is a Hugging Face hub name, pin it: set 'revision' to a commit"
        )
    check_commit(name, revision)
    return _load(name, {"revision": revision}, f"hub model {name}@{revision}", maker, fits, kind)


def _load(
    source: str, where: Mapping[str, Any], title: str, maker: Any, fits: Callable[[PretrainedConfig], bool], kind: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            config = AutoConfig.from_pretrained(source, trust_remote_code=False, **where)
            if not fits(config):
                raise ModelError(f"{title} is a {config.model_type!r} model, which is no {kind}")
            options = {**where, "use_safetensors": True, "trust_remote_code": False, "dtype": torch.float32}
            network, report = maker.from_pretrained(source, config=config, output_loading_info=True, **options)
            tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True, trust_remote_code=False, **where)
    except ModelError:
        raise
    except Exception as error:  # transformers, the hub client and safetensors raise a dozen kinds
        raise ModelError(f"{title} does not load: {type(error).__name__}: {error}") from error
    if hasattr(network, "peft_config"):
        raise ModelError(f"{title} comes with an adapter: use a model whose adapter was merged into the weights")
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(f"{title}: the weights lack {len(missing)} tensor(s), for one {missing[0]!r}")
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"{title}: its tokenizer has no fast version (tokenizer.json)")
    fast = fast_tokenizer(tokenizer.backend_tokenizer, special_tokens(tokenizer))
    if len(fast) > int(config.vocab_size):
        raise ModelError(f"{title}: its tokenizer has {len(fast)} entries, its embedding only {config.vocab_size}")
    return cast(PreTrainedModel, network), fast
