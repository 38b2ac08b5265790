"""The tensors of stored policies in a model's folder: one safetensors file for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from eefast.files import whole

POLICY_TENSORS = "policies.safetensors"
"""Keys are "<name of the policy>/<field>", see `Policy.tensors`."""


def save_policy_tensors(
    folder: str | Path,
    tensors: Mapping[str, Mapping[str, Tensor]],  # by name of the policy, then by field
) -> None:
    """Write the tensors of policies into `folder`; no file if no policy has any."""
    flat = {
        f"{name}/{field}": tensor.detach().clone().contiguous()  # two may share memory
        for name, fields in tensors.items()
        for field, tensor in fields.items()
    }
    path = Path(folder) / POLICY_TENSORS
    if not flat:
        path.unlink(missing_ok=True)  # of a model that was saved there before
        return
    with whole(path) as new:
        save_file(flat, new)


def load_policy_tensors(path: str | Path) -> dict[str, dict[str, Tensor]]:
    """Read the file that `save_policy_tensors` wrote.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        flat = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from None
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        name, _, field = key.rpartition("/")
        tensors.setdefault(name, {})[field] = tensor
    return tensors
