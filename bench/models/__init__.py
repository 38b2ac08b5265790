"""Which of transformers' families eefast walks: `python -m bench.models` writes docs/models.md."""
