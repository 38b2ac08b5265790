"""What calibration expects of a policy: written down, read back, and lost with the numbers."""

import copy
import json
import pickle
from dataclasses import replace

import pytest

from eefast import MultiExitModel
from eefast.policies import PABEE, Confidence, Expected, policy_from_dict
from tests.models import tiny_model

EXPECTED = Expected(0.75, (0.7, 0.8), 1.5, (1.25, 1.75), 400)


@pytest.mark.parametrize("policy", [PABEE(2), Confidence([0.9, 0.8, 0.7, 0.6])])
def test_it_goes_through_json_and_copies_and_changes_no_equality(policy):
    known = policy.expecting(EXPECTED)
    described = json.loads(json.dumps(known.to_dict(), allow_nan=False))
    for again in (
        policy_from_dict(described),
        copy.deepcopy(known),
        pickle.loads(pickle.dumps(known)),
    ):
        assert (again, again.expected) == (policy, EXPECTED)
    assert (known, hash(known)) == (policy, hash(policy))
    assert policy.expected is None
    assert "expected" not in policy.to_dict()  # as in files of before


def test_a_changed_policy_is_another_of_which_nothing_is_known():
    known = PABEE(2).expecting(EXPECTED)
    assert replace(known, patience=3).expected is None


def test_a_model_keeps_it(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    model.set_policy(PABEE(2).expecting(EXPECTED))
    assert model.get_policy("pabee").expected == EXPECTED
    model.save_policies(tmp_path)
    assert MultiExitModel.from_pretrained(tmp_path).get_policy("pabee").expected == EXPECTED


def test_its_repr_is_short():
    assert repr(EXPECTED) == (
        "Expected(accuracy 0.750 [0.700, 0.800], layer speed-up 1.50 [1.25, 1.75], 400 samples)"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(accuracy=1.5), r"accuracy must be in \[0, 1\]"),
        (dict(accuracy="high"), "accuracy must be a number, got 'high'"),
        (dict(layer_speedup=None), "layer_speedup must be a number, got None"),
        (dict(samples=0), "samples must be a whole number, 1 or more"),
        (dict(accuracy_interval=0.7), "accuracy_interval must be two numbers, got 0.7"),
        (dict(layer_speedup_interval=[1, 2, 3]), "layer_speedup_interval must be two numbers"),
        (dict(layer_speedup_interval=[1, "2"]), "layer_speedup_interval must be a number, got '2'"),
        (dict(luck=1), "expected must hold .*, got"),
    ],
)
def test_a_file_that_says_something_else_is_refused(change, words):
    described = PABEE(2).to_dict()
    with pytest.raises(ValueError, match=words):
        policy_from_dict({**described, "expected": {**EXPECTED.to_dict(), **change}})
    with pytest.raises(ValueError, match="expected must hold"):
        policy_from_dict({**described, "expected": [0.75, 1.5]})
