"""Which exit step a batch takes, on devices where that depends on the number of rows."""

import pytest
import torch

from eefast import compile
from eefast.backbones.families import BertBackbone
from eefast.policies import Never
from eefast.runtime.batch import Batches
from tests.models import inputs_for, plan_for, tiny_model


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def asked(monkeypatch):
    """The numbers of rows for which an implementation was looked up; up to 8 rows are taken."""
    import eefast.runtime.batch as module

    found, asked = module.implementation, []

    def implementation(impl, device, dtype, *, rows=None, classes=None):
        asked.append(rows)
        if rows is not None and rows > 8:
            raise ValueError(f"takes up to 8 rows, got {rows}")
        return found(impl, device, dtype, rows=rows, classes=classes)

    monkeypatch.setattr(module, "implementation", implementation)
    return asked


@torch.inference_mode()
def started(batches, model, samples):
    inputs = inputs_for(model, samples)
    batch = batches.open(plan_for(Never(), model), inputs)
    batch.start(inputs)
    return batch


def test_the_exit_step_follows_the_number_of_rows(model, asked):
    batches = Batches(model.layers, model.num_classes, "reference")
    assert asked == [None]  # what never fits is refused at once
    batch = started(batches, model, 5)
    stage = plan_for(Never(), model).stages[0]
    with torch.inference_mode():
        batch.keep(torch.tensor([0, 4]), torch.tensor([0, 4]))
        batch.run(stage)
    assert asked == [None, 5, 2]
    assert batch.state.exit_layer.tolist() == [4, 0, 0, 0, 4]
    started(batches, model, 5)
    assert asked == [None, 5, 2]  # looked up once


def test_too_many_rows_are_refused_before_the_first_layer(model, asked):
    batches = Batches(model.layers, model.num_classes, "reference")
    with pytest.raises(ValueError, match="takes up to 8 rows, got 9"):
        started(batches, model, 9)
    started(batches, model, 8)


class LastToken(BertBackbone):
    def readout(self, index, hidden, context):
        return hidden[:, -1], None


@pytest.mark.parametrize("runtime", ["direct", "sync"])
def test_exits_read_what_the_family_says(runtime):
    model = tiny_model()
    inputs = inputs_for(model, 5)
    first = compile(model, Never(), runtime=runtime)(**inputs).logits
    torch.testing.assert_close(first, model(**inputs).logits)
    model.layers = LastToken(model.backbone)
    last = compile(model, Never(), runtime=runtime)(**inputs).logits
    torch.testing.assert_close(last, model(**inputs).logits)
    assert not torch.allclose(first, last, atol=1e-2)
