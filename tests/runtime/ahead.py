"""One call of the run-ahead runtime on a stand-in for a GPU, and what it should give."""

from functools import cache
from unittest.mock import patch

import torch

from eefast import RuntimeStats, record_trace, simulate
from eefast.policies import Confidence
from eefast.runtime.runahead import RunAheadRuntime
from tests.models import inputs_for, plan_for, tiny_model
from tests.runtime.questions import Questions
from tests.runtime.test_direct import TOLERANCE

SAMPLES = 24
ALL = tuple(range(SAMPLES))
EVERY, PAIRS, UNEVEN = (1, 2, 3, 4), (2, 4), (1, 3, 4)
MIXED = Confidence(0.6)  # some of the samples below exit at every exit


@cache
def model_with(*exits):
    return tiny_model(exits=list(exits), cascade=exits == EVERY)


@cache
def inputs_of(*exits):
    return inputs_for(model_with(*exits), SAMPLES, padded=True)


@cache
def wanted(policy, *exits):
    """Exit layer, prediction, logits and score of every sample, simulated on a recorded trace."""
    labels = torch.zeros(SAMPLES, dtype=torch.int64)
    trace = record_trace(model_with(*exits), [{**inputs_of(*exits), "labels": labels}])
    outcome = simulate(policy, trace)
    logits = trace.logits[outcome.exit - 1, torch.arange(SAMPLES)]
    return outcome.exit_layer, outcome.prediction, logits, outcome.score


class Call:
    """One call of a run-ahead runtime, and its results."""

    def __init__(self, policy, new_queue, *, exits=EVERY, rows=ALL, depth=1):
        self.policy, self.exits, self.rows = policy, exits, list(rows)
        self.model = model_with(*exits)
        self.plan = plan_for(policy, self.model)
        self.stats = RuntimeStats()
        layers, classes = self.model.layers, self.model.num_classes
        self._runtime = RunAheadRuntime(layers, classes, "auto", depth, self._opened(new_queue))

    def _opened(self, new_queue):
        def opened(*shape):
            self.queue = new_queue(*shape)
            return self.queue

        return opened

    @torch.inference_mode()
    def run(self):
        inputs = {name: value[self.rows] for name, value in inputs_of(*self.exits).items()}
        # On the CPU, eefast reads whether a mask hides nothing; on a GPU it would not.
        with (
            patch("eefast.backbones.families.encoder.hides_nothing", lambda mask: False),
            Questions() as questions,
        ):
            self.state = self._runtime.run(self.plan, inputs, self.stats)
        self.questions = questions.count
        self.waits = self.queue.waits  # before stats are read, which may wait
        return self

    def check(self):
        exit_layer, prediction, logits, score = (
            values[self.rows] for values in wanted(self.policy, *self.exits)
        )
        assert torch.equal(self.state.exit_layer, exit_layer.int())
        assert torch.equal(self.state.prediction, prediction.int())
        torch.testing.assert_close(self.state.logits, logits, **TOLERANCE)
        torch.testing.assert_close(self.state.score, score, **TOLERANCE)
        return self

    @property
    def stages_needed(self):
        """Up to the one in which the last sample exited."""
        last = int(wanted(self.policy, *self.exits)[0][self.rows].max())
        return next(n for n, stage in enumerate(self.plan.stages, 1) if last in stage.layers)
