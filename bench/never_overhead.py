"""What eefast adds to the layers themselves: `Never()` against the same layers in a bare loop.

    python -m bench.never_overhead | tee docs/never_overhead.txt

Random weights of MiniLM's and BERT-base's shape, batch 1, fp32; the two variants take turns on the
same input, and the ratio of the medians of their times is printed. The target is at most 1.01.
"""

import numpy as np
import torch
from transformers import BertConfig, BertModel

from eefast import attach_exits, compile
from eefast.latency import time_interleaved
from eefast.policies import Never

SHAPES = {
    "MiniLM (6 x 384)": dict(hidden_size=384, num_hidden_layers=6, intermediate_size=1536),
    "BERT-base (12 x 768)": dict(hidden_size=768, num_hidden_layers=12, intermediate_size=3072),
}


def main(calls: int = 200) -> None:
    """Print one line per shape and length."""
    for name, shape in SHAPES.items():
        config = BertConfig(num_attention_heads=12, **shape)
        model = attach_exits(BertModel(config)).eval()
        layers, fast = model.layers, compile(model, Never())

        @torch.inference_mode()
        def layers_alone(layers=layers, **inputs):
            layers.check(inputs)
            hidden, context = layers.start(inputs)
            for layer in range(1, layers.depth + 1):
                hidden = layers.layer(layer, hidden, context)
            return hidden

        for length in (16, 32, 128):
            ids = torch.randint(config.vocab_size, (1, length))
            inputs = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}] * calls
            times = time_interleaved({"layers": layers_alone, "never": fast}, inputs, rounds=1)
            alone, never = (np.median(times[k].per_input_ms) for k in ("layers", "never"))
            print(
                f"{name}, length {length}, {torch.get_num_threads()} threads: "
                f"{never / alone:.4f} (layers alone {alone:.2f} ms)",
                flush=True,
            )


if __name__ == "__main__":
    main()
