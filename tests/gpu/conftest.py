"""The model that the tests on a GPU share."""

import pytest

from tests.models import tiny_model


@pytest.fixture(scope="module")
def on_cpu():
    return tiny_model()


@pytest.fixture(scope="module")
def on_gpu():
    return tiny_model().to("cuda")  # of the same seed
