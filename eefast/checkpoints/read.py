"""Config and weights of a checkpoint's folder, as they are."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json holds.

    Raises:
        FileNotFoundError: there is no such folder, or no config in it.
        ValueError: it holds no JSON object.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no checkpoint folder {folder}")
    try:
        described = json.loads((folder / "config.json").read_text())
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(f"{folder} holds no checkpoint: it has no config.json") from None
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} holds no JSON: {error}") from None
    if not isinstance(described, dict):
        raise ValueError(f"{folder / 'config.json'} must hold an object, got {described!r}")
    return described


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The state dict, on the CPU; from the safetensors file if there are both.

    Raises:
        FileNotFoundError: there is neither file.
        ValueError: a damaged file, or one that holds more than named tensors.
    """
    path = folder / SAFETENSORS
    if not path.is_file():
        path = folder / PICKLE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no weights: neither {SAFETENSORS} nor {PICKLE}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError:  # whose message says how to run the file's code all the same
        raise ValueError(
            f"{path} cannot be read as weights: it is damaged, or holds more than tensors by name"
        ) from None
    except Exception as error:  # of damaged files torch raises what it stumbles on
        raise ValueError(f"{path} cannot be read as weights: {error!r}") from None
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()
    ):
        raise ValueError(f"{path} must hold tensors by name, got a {type(loaded).__name__}")
    return dict(loaded)
