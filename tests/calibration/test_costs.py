"""What leaving costs, and the file of costs."""

import json

import pytest

from eefast.calibration.costs import Costs
from eefast.policies import PABEE, Budgeted, MuE, Never
from tests.models import tiny_model


@pytest.mark.parametrize(
    ("policy", "costs", "wanted"),
    [
        (PABEE(1), Costs((1, 2, 3, 4)), [3, 6, 10]),
        (PABEE(1), Costs((1, 2, 3, 4), (0.1, 0.2, 0.4)), [3.1, 6.3, 10.7]),
        (Budgeted(2), Costs((1, 2, 3, 4), (0.1, 0.2, 0.4)), [3, 6.2, 10.2]),
        (Never(), Costs((1, 2, 3, 4), (0.1, 0.2, 0.4)), [3, 6, 10.4]),
        (MuE(0.9), Costs((1, 2, 3, 4), (0.1, 0.2, 0.4)), [3.4, 6.4, 10.4]),
        (MuE(0.9), Costs((1, 2, 3, 4)), [3, 6, 10]),
    ],
)
def test_leaving_costs_the_layers_and_the_exit_steps_up_to_it(policy, costs, wanted):
    assert costs.of_leaving(policy, (2, 3, 4)).tolist() == pytest.approx(wanted)


def test_costs_for_another_model_are_refused():
    for costs in (Costs((1, 2, 3)), Costs((1, 2, 3, 4), (1, 2))):
        with pytest.raises(ValueError, match=r"must hold 4 layers and 3 exits \(or none\), got"):
            costs.of_leaving(PABEE(1), (2, 3, 4))


def test_a_file_of_costs(tmp_path):
    costs = Costs((1.5, 2.0), (0.1, 0.2), "ms")
    costs.save(tmp_path / "costs.json")
    assert Costs.load(tmp_path / "costs.json") == costs


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"layers": [1, -1]}, r"costs: layers must be in \[0, inf\], got -1"),
        ({"layers": 3}, "layers must be a list of numbers, got 3"),
        ({"layers": [1], "exits": ["a"]}, "exits must be a number, got 'a'"),
        ({"layers": [1], "unit": 3}, "unit must be a text, got 3"),
        ({"layer": [1]}, "layer"),
        ([1], "holds no costs"),
    ],
)
def test_another_file_is_refused(tmp_path, described, words):
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(described))
    with pytest.raises(ValueError, match=words):
        Costs.load(path)


def test_flops_of_a_model():
    model = tiny_model(exits=[2, 4])
    costs = Costs.flops(model, 5)
    assert costs.layers == (2 * 5 * (4 * 32 * 32 + 2 * 32 * 64) + 4 * 5 * 5 * 32,) * 4
    assert costs.exits == (2 * 32 * 3,) * 2
    assert costs.unit == "FLOPs"
    for length, words in ((0, "length must be 1 or more, got 0"), (41, "wanted 1 to 40")):
        with pytest.raises(ValueError, match=words):
            Costs.flops(model, length)
