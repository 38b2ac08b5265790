"""The network scorer: a learned score from what the exits so far have said of one sample."""

import triton
import triton.language as tl

SLOPE = tl.constexpr(0.01)  # of the leaky rectifier below 0
BLOCK_H = tl.constexpr(4)  # units at a time: more take registers that the head has not


@triton.jit
def network_score(
    scorer,  # [H, F + 2]: F weights, bias and output weight of each unit
    units,  # H
    classes,  # C
    exit,
    probability,  # [BLOCK_C], 0 where there is no class
    output,  # [BLOCK_C]
    valid,  # [BLOCK_C]
    confidence,
    entropy,
    share,  # of the votes, of the class that has most
    scores,  # [exit - 1]: of the exits before
):
    """sigmoid(sum_h out_h leaky_relu(w_h f + b_h)), EENet's Eq. 5 to 9."""
    width = classes + exit + 4  # F + 2
    total = 0.0
    for first in range(0, units, BLOCK_H):
        unit = first + tl.arange(0, BLOCK_H)
        inside = unit < units
        row = scorer + unit * width
        weights = tl.load(
            row[:, None] + output[None, :], mask=inside[:, None] & valid[None, :], other=0.0
        )
        x = tl.sum(weights * probability[None, :], 1)
        row += classes
        x += tl.load(row, mask=inside, other=0.0) * confidence
        x += tl.load(row + 1, mask=inside, other=0.0) * (1.0 - entropy)
        x += tl.load(row + 2, mask=inside, other=0.0) * share
        row += 3
        for i in range(0, exit - 1):
            x += tl.load(row + i, mask=inside, other=0.0) * tl.load(scores + i)
        row += exit - 1
        x += tl.load(row, mask=inside, other=0.0)
        active = tl.where(x > 0.0, x, SLOPE * x)
        total += tl.sum(tl.load(row + 1, mask=inside, other=0.0) * active, 0)
    return tl.sigmoid(total)
