"""Models in folders: ``model.safetensors`` (weights), ``model.json`` (everything else) and ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer

from bench.context import Cost
from bench.contracts import TaskInfo
from bench.errors import ModelError
from bench.models.encoders import blank_encoder, fast_tokenizer, make_network, special_tokens
from bench.models.handles import WhiteBox
from bench.models.settings import ModelSettings

WEIGHTS, DESCRIPTION, TOKENIZER = "model.safetensors", "model.json", "tokenizer.json"
FORMAT = 1


def save(model: WhiteBox, folder: Path) -> None:
    """Write a model to a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "format": FORMAT,
        "name": model.name,
        "kind": model.info.kind.value,
        "classes": len(model.info.labels),
        "pooling": model.network.pooling,
        "settings": model.settings.model_dump(mode="json"),
        "encoder": model.network.encoder.config.to_dict(),
        "special_tokens": special_tokens(model.tokenizer),
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True), encoding="utf-8")
    (folder / TOKENIZER).write_text(model.tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    save_model(model.network, str(folder / WEIGHTS))


def load(folder: Path, info: TaskInfo, device: torch.device, cost: Cost) -> WhiteBox:
    """Read a model that :meth:`~bench.models.handles.WhiteBox.save` wrote.

    Raises:
        ModelError: a file is missing, truncated or of another format, a weight is missing or has the wrong shape, or the model
            was made for another kind of task.
    """
    folder = Path(folder)
    for name in (DESCRIPTION, TOKENIZER, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"model folder {folder} holds no {name}; delete it and run again to rebuild it")
    description = _read(folder / DESCRIPTION)
    made_for = (description.get("kind"), description.get("classes"))
    if made_for != (info.kind.value, len(info.labels)):
        raise ModelError(
            f"model folder {folder} holds a model for {made_for[0]} with {made_for[1]} classes, "
            f"task {info.name!r} is {info.kind.value} with {len(info.labels)}"
        )
    try:
        settings = ModelSettings.model_validate(description["settings"])
        tokenizer = fast_tokenizer(Tokenizer.from_file(str(folder / TOKENIZER)), description["special_tokens"])
        with torch.random.fork_rng(devices=[]):
            encoder = blank_encoder(description["encoder"], description["pooling"])
            network = make_network(encoder, info, settings, description["pooling"])
        load_model(network, str(folder / WEIGHTS), strict=True)
    except (KeyError, ValidationError) as error:
        raise ModelError(f"model folder {folder}: {DESCRIPTION} is not complete: {error}") from error
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(f"model folder {folder}: {WEIGHTS} cannot be read ({error}); delete it to rebuild") from error
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelError(f"model folder {folder}: {TOKENIZER} cannot be read ({error})") from error
    return WhiteBox(description["name"], info, network, tokenizer, settings, device, cost)


def _read(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not JSON: {error}; delete the folder and run again to rebuild it") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelError(f"{path} is no model description of format {FORMAT}")
    return description
