"""Settings of all tests."""

import os

import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before eefast.kernels is imported

# Tests never judge time; in CI the same examples are drawn each time.
settings.register_profile("eefast", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("eefast")
