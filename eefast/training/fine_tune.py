"""Fine-tuning a multi-exit classifier with transformers' Trainer; what `eefast train` runs."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

logger = logging.getLogger(__name__)


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    output_dir: str | Path,
    *,
    epochs: float = 1.0,
    batch_size: int = 32,
    learning_rate: float = 5e-5,
    seed: int = 0,
    save_steps: int = 100,
) -> None:
    """Train a model with its own objective and save it, with the tokenizer, in `output_dir`.

    Checkpoints are written to `output_dir/checkpoints`; called again with the same arguments after
    an interruption, it continues from the last of them. The tokenizer is saved last: where its
    files are, the model is complete (see `is_finished`).

    Args:
        model: trained in place.
        tokenizer: pads the batches.
        train: columns of the tokenizer, and `labels` (see `eefast.data.encode`).
        output_dir: folder of the finished model.
        epochs: passes over the data.
        batch_size: samples a step; batches are made of texts of similar length.
        learning_rate: peak of AdamW's, after a warm-up over a tenth of the steps, then linearly
            down to 0.
        seed: of the order of samples and of dropout.
        save_steps: steps between checkpoints.

    Raises:
        ValueError: `output_dir` holds checkpoints of a run with other arguments.
    """
    checkpoints = Path(output_dir) / "checkpoints"
    _claim(
        checkpoints / "run.json",
        {
            "model": model.config.to_dict(),
            "data": hashlib.sha256(json.dumps(train[:]).encode()).hexdigest(),
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "seed": seed,
        },
    )
    set_seed(seed)
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        train_sampling_strategy="group_by_length",
        seed=seed,
        bf16=not on_gpu or torch.cuda.is_bf16_supported(),
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        save_steps=save_steps,
        save_total_limit=1,
        logging_steps=50,
        report_to="none",
    )
    trainer = Trainer(
        model, arguments, DataCollatorWithPadding(tokenizer), train, processing_class=tokenizer
    )
    resume = _last_complete(checkpoints)
    if resume is not None:
        logger.warning("going on from %s", resume)
    try:
        trainer.train(resume_from_checkpoint=resume)
    except KeyboardInterrupt:
        logger.warning("interrupted; run it again to go on from %s", _last_complete(checkpoints))
        raise
    # Trainer does not unwrap the model's forward from bfloat16 autocast; what is recorded and
    # calibrated next must be the model that is saved.
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    model.eval()
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)


def is_finished(output_dir: str | Path) -> bool:
    """Whether `fine_tune` has finished there."""
    return (Path(output_dir) / "tokenizer_config.json").exists()


def batches(
    encoded: Dataset, tokenizer: PreTrainedTokenizerBase, batch_size: int = 64
) -> DataLoader[dict[str, torch.Tensor]]:
    """Padded batches of an encoded data set in its own order, e.g. for `record_trace`."""
    return DataLoader(encoded, batch_size, collate_fn=DataCollatorWithPadding(tokenizer))


def _last_complete(checkpoints: Path) -> str | None:
    """The newest complete checkpoint: Trainer writes its own state last."""
    complete = [folder.parent for folder in checkpoints.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda folder: int(folder.name.split("-")[1]), default="")) or None


def _claim(path: Path, run: dict[str, Any]) -> None:
    """Record what is trained here; refuse to continue from the checkpoints of something else."""
    run = json.loads(json.dumps(run, default=str))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run, indent=2) + "\n")
        return
    before = json.loads(path.read_text())
    changed = sorted(key for key in run if run[key] != before.get(key))
    if changed:
        raise ValueError(
            f"{path.parent} holds checkpoints of a run with other arguments ({', '.join(changed)} "
            "differ): give another output folder, or remove that one"
        )
