"""The command that writes docs/adapters.md."""

from bench import adapters
from tests.backbones.families import build


def test_an_adapter_and_the_generic_path_are_both_timed():
    found = adapters.measure(build("modernbert", max_position_embeddings=adapters.TOKENS), 1)
    assert found.keys() == {"adapter", "generic", "embeddings"}
    assert min(found.values()) > 0


def test_the_page_compares_them():
    page = adapters.page({"A": {"adapter": 50.4, "generic": 100.8, "embeddings": 20.0}})
    assert "| A | 20 | 50 | 101 | 2.00 |" in page
