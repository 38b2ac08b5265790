"""What cannot be captured is found before, and named."""

import pytest
import torch
import torch.nn.functional as F

from eefast.runtime.graph.capturable import Capturable

X = torch.ones(3, 4)

REFUSED = {
    "item": (lambda: X.sum().item(), "_local_scalar_dense.*has the host wait"),
    "bool": (lambda: bool(X.all()), "has the host wait"),
    "equal": (lambda: torch.equal(X, X), "equal.*has the host wait"),
    "nonzero": (lambda: X.nonzero(), "nonzero.*shape depends on numbers"),
    "unique": (lambda: X.unique(), "shape depends on numbers"),
    "masked_select": (lambda: X.masked_select(X > 0), "masked_select.*shape depends"),
    "mask as index": (lambda: X[X > 0], "index.*shape depends on numbers"),
    "mask as target": (lambda: X.clone().index_put_((X > 0,), X.new_zeros(())), "shape depends"),
    "dropout": (lambda: F.dropout(X, 0.5), "draws random numbers"),
    "noise": (lambda: torch.rand_like(X), "draws random numbers"),
    "attention with dropout": (
        lambda: F.scaled_dot_product_attention(X[None], X[None], X[None], dropout_p=0.5),
        "draws random numbers",
    ),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, inference):
    operation, message = REFUSED[name]
    with (
        torch.inference_mode(inference),
        Capturable(lambda: "layers 2 to 3"),
        pytest.raises(RuntimeError, match=f"layers 2 to 3: cannot be captured.*{message}"),
    ):
        operation()


ALLOWED = {
    "integers as index": lambda: X[torch.tensor([0, 2])],
    "integers as target": lambda: X.clone().index_put_((torch.tensor([0, 2]),), X.new_zeros(4)),
    "a choice": lambda: torch.where(X > 0, X, 0.0),
    "masked_fill": lambda: X.masked_fill(X > 0, 1.0),
    "dropout in evaluation": lambda: F.dropout(X, 0.5, training=False),
    "attention": lambda: F.scaled_dot_product_attention(X[None], X[None], X[None]),
    "a new tensor": lambda: torch.arange(4, device="cpu") + X,
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name, inference):
    with torch.inference_mode(inference), Capturable(lambda: "the embeddings"):
        got = ALLOWED[name]()
    assert torch.equal(got, ALLOWED[name]())


ACROSS = {  # from or to a device without numbers, in the place of a GPU
    "to the host": (lambda x: torch.ones(4).copy_(x), True),
    "from the host": (lambda x: torch.ones(4).to(x.device), True),
    "a scalar from the host": (lambda x: torch.tensor(1.0).to(x.device), True),
    "a copy from the host": (lambda x: x.copy_(torch.ones(4)), True),
    "a scalar on the host as argument": (lambda x: x * torch.tensor(2.0), False),
    "another precision": (lambda x: x.half(), False),
    "a mask made there": (lambda x: x.masked_fill(x > 0, 1.0), False),
    "made there": (lambda x: torch.zeros(4, device=x.device), False),
}


@pytest.mark.parametrize("name", ACROSS)
def test_copies_between_host_and_device(name):
    operation, refused = ACROSS[name]
    x = torch.empty(4, device="meta")
    with Capturable(lambda: "layer"):
        if refused:
            with pytest.raises(RuntimeError, match="moves numbers between cpu and meta"):
                operation(x)
        else:
            assert operation(x).is_meta
