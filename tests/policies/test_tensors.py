"""Policies that hold tensors: described, saved beside the JSON, and read back."""

import json
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from eefast import MultiExitModel
from eefast.policies import Columns, Gain, Keep, Policy, ScorerKind, policy_from_dict
from tests.models import tiny_model


@dataclass(frozen=True, eq=False)
class Learned(Policy):
    """A network for each exit, and a temperature that is a tensor, too."""

    name = "test-learned"
    keep, gain, scorer = Keep.NEVER, Gain.SCORE, ScorerKind.NETWORK

    networks: tuple[Tensor, ...]
    temperature: Tensor
    threshold: float = 0.5

    def scorer_weights(self, exit):
        return self.networks[exit - 1]

    def columns(self, num_exits):
        return Columns(thresholds=self.threshold)


def learned(exits=4, classes=3, threshold=0.25):
    networks = tuple(torch.randn(6, classes + exit + 4) for exit in range(1, exits + 1))
    return Learned(networks, torch.tensor(2.0), threshold)


def assert_same(policy, wanted):
    assert isinstance(policy, Learned)
    assert policy.threshold == wanted.threshold
    assert torch.equal(policy.temperature, wanted.temperature)
    assert len(policy.networks) == len(wanted.networks)
    for ours, theirs in zip(policy.networks, wanted.networks, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("exits", [4, 12])  # with twelve, "networks.10" sorts before "networks.2"
def test_a_description_is_json_and_tensors(exits):
    policy = learned(exits)
    described = json.loads(json.dumps(policy.to_dict(), allow_nan=False))
    assert described == {
        "policy": "test-learned", "threshold": 0.25, "num_exits": None, "num_classes": None,
    }  # fmt: skip
    names = {"temperature", *(f"networks.{i}" for i in range(exits))}
    assert policy.tensors().keys() == names
    shuffled = dict(sorted(policy.tensors().items()))
    assert_same(policy_from_dict(described, shuffled), policy)


def test_a_description_without_its_tensors_is_refused():
    with pytest.raises(ValueError, match=r"'test-learned' cannot be made from .*networks"):
        policy_from_dict(learned().to_dict())


def test_a_saved_folder_gets_the_tensors_of_its_policies_or_nothing(tmp_path, monkeypatch):
    def full(_, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    model, policy = tiny_model(), learned()
    model.save_pretrained(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    model.set_policy(policy)
    with monkeypatch.context() as patch:
        patch.setattr("eefast.policies.files.save_file", full)
        with pytest.raises(OSError, match="No space left"):
            model.save_policies(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    model.save_policies(tmp_path)
    assert_same(MultiExitModel.from_pretrained(tmp_path).get_policy("test-learned"), policy)


def test_a_model_saves_the_tensors_of_its_policies(tmp_path):
    model, policy = tiny_model(), learned()
    model.set_policy(policy)
    assert_same(model.get_policy("test-learned"), policy)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "policies.safetensors").exists()
    assert "networks" not in (tmp_path / "config.json").read_text()
    loaded = MultiExitModel.from_pretrained(tmp_path)
    assert_same(loaded.get_policy("test-learned"), policy)
    loaded.save_pretrained(tmp_path / "again")
    again = MultiExitModel.from_pretrained(tmp_path / "again")
    assert_same(again.get_policy("test-learned"), policy)


def test_stored_tensors_are_the_models_own_and_may_have_shared_memory(tmp_path):
    networks = learned().networks
    policy = Learned(networks, networks[0][0, 0])
    model, before = tiny_model(), networks[0].clone()
    model.set_policy(policy)
    networks[0].mul_(-1)
    assert torch.equal(model.get_policy("test-learned").networks[0], before)
    model.save_pretrained(tmp_path)
    loaded = MultiExitModel.from_pretrained(tmp_path).get_policy("test-learned")
    assert torch.equal(loaded.networks[0], before)


def test_no_file_where_no_policy_has_tensors(tmp_path):
    model = tiny_model()
    model.set_policy(learned())
    model.save_pretrained(tmp_path)
    tiny_model().save_pretrained(tmp_path)  # another model in the same folder
    assert not (tmp_path / "policies.safetensors").exists()
    assert MultiExitModel.from_pretrained(tmp_path).get_policy("test-learned") is None


def test_a_damaged_file_is_refused(tmp_path):
    model = tiny_model()
    model.set_policy(learned())
    model.save_pretrained(tmp_path)
    path = tmp_path / "policies.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"policies.safetensors is .*damaged"):
        MultiExitModel.from_pretrained(tmp_path)
