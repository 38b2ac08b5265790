"""Settings of all tests."""

import os

from hypothesis import settings

# Tests never judge time; in CI the same examples are drawn each time.
settings.register_profile("eefast", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("eefast")
