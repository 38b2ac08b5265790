"""What eefast adds to the layers themselves: `Never()` against the same layers in a bare loop.

    python -m bench.never_overhead | tee docs/never_overhead.txt

Random weights of MiniLM's and BERT-base's shape, batch 1, fp32; the two variants take turns on the
same input, and the ratio of the medians of their times is printed. The target is at most 1.01.
"""

import torch

from bench.shapes import SHAPES, make_model
from eefast import compile
from eefast.measure import time_interleaved
from eefast.policies import Never


def main(calls: int = 200) -> None:
    """Print one line per shape and length."""
    for name, shape in SHAPES.items():
        model = make_model(shape)
        layers, fast = model.layers, compile(model, Never())
        size = f"{shape['num_hidden_layers']} x {shape['hidden_size']}"

        @torch.inference_mode()
        def layers_alone(layers=layers, **inputs):
            layers.check(inputs)
            hidden, context = layers.start(inputs)
            for layer in range(1, layers.depth + 1):
                hidden = layers.layer(layer, hidden, context)
            return hidden

        for length in (16, 32, 128):
            ids = torch.randint(model.config.backbone_config.vocab_size, (1, length))
            inputs = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}] * calls
            times = time_interleaved({"layers": layers_alone, "never": fast}, inputs, rounds=1)
            alone, never = times["layers"].p50_ms, times["never"].p50_ms
            print(
                f"{name} ({size}), length {length}, {torch.get_num_threads()} threads: "
                f"{never / alone:.4f} (layers alone {alone:.2f} ms)",
                flush=True,
            )


if __name__ == "__main__":
    main()
