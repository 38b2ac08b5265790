"""What the stand-in's own tests share."""

import pytest
import torch

from tests.runtime.graph.stand_in import StandInDevice


@pytest.fixture(params=[True, False], ids=["inference mode", "no grad"])
def either_mode(request):
    with torch.inference_mode(request.param), torch.no_grad():
        yield


@pytest.fixture
def device():
    with (device := StandInDevice()).watching():
        yield device


@pytest.fixture
def x():
    return torch.arange(12.0).reshape(3, 4)
