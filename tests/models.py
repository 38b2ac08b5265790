"""Small random models that several test files use."""

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from eefast import MultiExitModel, attach_exits
from eefast.ops import ScorerKind
from eefast.runtime.plan import Plan


def tiny_model(classes=3, layers=4, seed=0, spread=1.5, **options) -> MultiExitModel:
    """A BERT of 4 layers, 32 wide, in evaluation mode.

    `spread` is the standard deviation of the logits: samples differ in confidence and prediction.
    """
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        num_labels=classes,
        initializer_range=0.2,
    )
    model = attach_exits(BertModel(config), **options).eval()
    with torch.no_grad():
        for pooler in model.heads.poolers:
            pooler.weight.normal_(0, 32**-0.5)
        for classifier in model.heads.classifiers:
            classifier.weight.normal_(0, spread * 32**-0.5)
        for cascade in model.heads.cascades:
            cascade.weight.normal_(0, 0.5)
    return model


def inputs_for(model, batch, length=12, seed=0, padded=False) -> dict[str, torch.Tensor]:
    """Token ids and mask; `padded` gives the samples lengths from 1 to `length`."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, model.config.backbone_config.vocab_size, (batch, length), generator=g)
    mask = torch.ones_like(ids)
    if padded:
        lengths = torch.randint(1, length + 1, (batch, 1), generator=g)
        mask = (torch.arange(length) < lengths).long()
        ids = ids * mask
    return {"input_ids": ids, "attention_mask": mask}


def losses_of_training(model, batch, steps, parameters=None, lr=1e-3) -> list[float]:
    """The losses of so many steps of Adam on one batch; None: of all parameters."""
    optimizer = torch.optim.Adam(parameters or model.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def plan_for(policy, model) -> Plan:
    """The plan of a policy for a model, as `compile` makes it."""
    exits = model.config.exits
    scorer_row = policy.scorer is ScorerKind.ROW
    heads = [model.heads.weights(exit, scorer_row) for exit in range(1, len(exits) + 1)]
    return Plan.make(policy, exits, heads, model.num_classes, model.device)


def save_tiny_text_model(folder, texts) -> None:
    """A pretrained model in small: a BERT of 3 layers, 16 wide, and a tokenizer of `texts`."""
    words = sorted({word for text in texts for word in text.split()})
    (folder / "words.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]))
    BertTokenizerFast(str(folder / "words.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words) + 4, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
