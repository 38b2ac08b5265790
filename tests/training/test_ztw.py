"""ZTW's objective: its stages, and what each minimises."""

import pytest
import torch
import torch.nn.functional as F

from eefast.training import Exits, objective, stages
from tests.models import inputs_for, tiny_model


def test_ztw_trains_exits_on_a_frozen_backbone_or_all_at_once():
    batch = {**inputs_for(tiny_model(), 3), "labels": torch.tensor([0, 1, 2])}
    frozen = tiny_model(objective="ztw")
    seen = {}
    for stage in stages(frozen):
        trained = {name for name, p in frozen.named_parameters() if p.requires_grad}
        of_backbone = any("backbone" in name for name in trained)
        assert any("cascades" in name for name in trained) == (stage.name == "exits")
        seen[stage.name] = (of_backbone, frozen(**batch).loss.item())
    each = [F.cross_entropy(z, batch["labels"]).item() for z in frozen(**batch).exit_logits]
    assert seen["backbone"] == (True, pytest.approx(each[-1]))
    assert seen["exits"] == (False, pytest.approx(sum(each[:-1]), rel=1e-5))

    joint = tiny_model(objective="ztw", objective_options={"frozen": False}).train()
    assert [stage.name for stage in stages(joint)] == ["training"]
    assert joint.eval()(**batch).loss.item() == pytest.approx(sum(each), rel=1e-5)
    with pytest.raises(ValueError, match="frozen must be True or False, got 'yes'"):
        objective("ztw", Exits((1, 2), (1, 1), 3), frozen="yes")
    with pytest.raises(ValueError, match="'ztw' trains exits before the last, and"):
        objective("ztw", Exits((2,), (1, 1), 3))
