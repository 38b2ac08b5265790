"""What a call asks of CUDA, and in which order; tests/gpu runs it on a GPU."""

import numpy as np
import pytest
import torch

from eefast.runtime.call_queue import CudaQueue


@pytest.fixture
def asked(monkeypatch):
    """What was asked for, in order, of a PyTorch that only notes pinned memory and events."""
    asked = []
    empty, copy = torch.empty, torch.Tensor.copy_

    class Event:
        def record(self, stream):
            self.name = f"event {sum(entry.startswith('record') for entry in asked)}"
            asked.append(f"record {self.name} on {stream}")

        def synchronize(self):
            asked.append(f"wait for {self.name}")

    def allocated(*shape, pin_memory, **options):
        asked.append(f"pinned: {pin_memory}")
        return empty(*shape, **options).fill_(7)  # what was left there

    def copied(target, source, non_blocking=False):
        asked.append(f"copy {source.tolist()}, non-blocking: {non_blocking}")
        return copy(target, source)

    monkeypatch.setattr(torch, "empty", allocated)
    monkeypatch.setattr(torch.Tensor, "copy_", copied)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    return asked


def test_each_copy_is_followed_by_its_event_and_read_without_asking(asked):
    queue = CudaQueue(2, 3, torch.device("cuda:1"))
    assert queue.poll(0) is None
    queue.enqueue(lambda: asked.append("work"))
    queue.publish(0, torch.tensor([0, 1, 0], dtype=torch.int32))
    queue.publish(1, torch.tensor([2, 1, 0], dtype=torch.int32))
    assert asked == [
        "pinned: True",
        "work",
        "copy [0, 1, 0], non-blocking: True",
        "record event 0 on stream of cuda:1",
        "copy [2, 1, 0], non-blocking: True",
        "record event 1 on stream of cuda:1",
    ]
    np.testing.assert_array_equal(queue.poll(1), [2, 1, 0])
    assert len(asked) == 6
    np.testing.assert_array_equal(queue.wait(0), [0, 1, 0])
    assert asked[6:] == ["wait for event 0"]


def test_an_outcome_that_arrived_in_part_has_not_arrived(asked):
    queue = CudaQueue(1, 3, torch.device("cuda:0"))
    queue._slots[0, :2] = torch.tensor([1, 1], dtype=torch.int32)
    assert queue.poll(0) is None
