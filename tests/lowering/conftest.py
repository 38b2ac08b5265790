"""What tests of packed layers share."""

import pytest
import torch

from eefast.ops import _native

assert _native.AVAILABLE, "the C++ extension is not built"
SETS = torch.ops.eefast.cpp_layer_instruction_sets()


@pytest.fixture(params=SETS)
def instruction_set(request):
    """Each that runs here is used once; what was used before comes back."""
    before = torch.ops.eefast.cpp_use_layer_instruction_set(request.param)
    yield request.param
    torch.ops.eefast.cpp_use_layer_instruction_set(before)
