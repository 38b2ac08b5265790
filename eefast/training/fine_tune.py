"""Fine-tuning a multi-exit classifier with transformers' Trainer; what `eefast train` runs."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from contextlib import closing
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
from transformers.trainer_pt_utils import LengthGroupedSampler

from eefast.policies.values import whole
from eefast.training.metrics import exit_accuracies, exit_correlations
from eefast.training.progress import TrainingProgress
from eefast.training.run import Run, one_error_of_the_disk
from eefast.training.stages import stages, stages_of

EVALUATION_BATCH = 64

logger = logging.getLogger(__name__)


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    output_dir: str | Path,
    *,
    validation: Dataset | None = None,
    epochs: float | Sequence[float] = 1.0,
    batch_size: int = 32,
    learning_rate: float = 5e-5,
    seed: int = 0,
    save_steps: int = 100,
) -> None:
    """Train a model with its own objective and save it, with the tokenizer, in `output_dir`.

    An objective of several stages is trained in all of them, one after the other. The last
    checkpoint (of each stage) is kept in `output_dir/checkpoints`; called again with the same
    arguments after an interruption, it continues from there. Once the model is saved the
    checkpoints are removed, and called again it only loads the weights into `model`.

    Args:
        model: trained in place.
        tokenizer: pads the batches.
        train: columns of the tokenizer, and `labels` (see `eefast.data.encode`).
        output_dir: folder of the finished model.
        validation: if given, each exit's accuracy on it (of a regression its correlations) is
            reported after each epoch.
        epochs: passes over the data; in each stage, or one number for each of several stages (0: a
            stage that is left out).
        batch_size: samples a step; batches are made of texts of similar length.
        learning_rate: peak of AdamW's, after a warm-up over a tenth of the steps, then linearly
            down to 0.
        seed: of the order of samples and of dropout.
        save_steps: steps between checkpoints.

    Raises:
        ValueError: an argument out of its range, a text longer than the model takes, or a folder
            that holds a training with other arguments.
        ModuleNotFoundError: accelerate is not installed.
        OSError: the disk is full, or `output_dir` holds something else.

    Bad arguments are refused before anything is written.
    """
    import accelerate  # noqa: F401  (Trainer would say so later, and less clearly)

    count = len(stages_of(model))
    per_stage: list[Any] = [*epochs] if isinstance(epochs, list | tuple) else [epochs] * count
    if len(per_stage) != count:
        raise ValueError(
            f"epochs must be one number, or {count}: one for each stage of objective "
            f"{model.config.objective!r}; got {epochs}"
        )
    for name, value in (*(("epochs", e) for e in per_stage), ("learning_rate", learning_rate)):
        if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number, 0 or more; got {value!r}")
    for name, value in (("batch_size", batch_size), ("save_steps", save_steps)):
        whole("fine_tune", name, value, 1)
    for name, encoded in (("train", train), ("validation", validation)):
        _check_lengths(name, encoded, model)
    run = Run(output_dir, count)
    made_of = {
        "model": model.config.to_dict(),
        "data": hashlib.sha256(json.dumps(train[:]).encode()).hexdigest(),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    run.check(made_of)
    if run.is_finished():
        logger.warning("%s holds the trained model: nothing to do", output_dir)
        model.load_state_dict(type(model).from_pretrained(output_dir).state_dict())
        model.eval()
        return
    set_seed(seed)
    on_gpu = torch.cuda.is_available()
    options: dict[str, Any] = dict(
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=EVALUATION_BATCH,
        eval_strategy="no" if validation is None else "epoch",
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        seed=seed,
        bf16=not on_gpu or torch.cuda.is_bf16_supported(),
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        save_steps=save_steps,
        save_total_limit=1,
        logging_steps=50,
        report_to="none",
    )
    metrics = exit_correlations if model.config.num_labels == 1 else exit_accuracies
    with one_error_of_the_disk(run.folder), closing(stages(model)) as current:
        resume = run.begin(made_of)
        if resume is not None:
            logger.warning("going on from %s", resume)
        for stage, folder, passes in zip(current, run.stages, per_stage, strict=True):
            if resume is not None and resume.parent != folder:
                continue  # a later stage has begun with what this one has learned
            if count > 1:
                logger.warning("stage %r of %r", stage.name, model.config.objective)
            trainer = _Trainer(
                model,
                TrainingArguments(output_dir=str(folder), num_train_epochs=passes, **options),
                DataCollatorWithPadding(tokenizer),
                train,
                validation,
                processing_class=tokenizer,
                compute_metrics=None if validation is None else metrics(model),
                callbacks=[TrainingProgress()],
            )
            try:
                trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
            except KeyboardInterrupt:
                last = run.last_checkpoint()
                again = "begin anew, no checkpoint yet" if last is None else f"go on from {last}"
                raise KeyboardInterrupt(f"interrupted; run it again to {again}") from None
            resume = None
        # Trainer does not unwrap the model's forward from bfloat16 autocast. (Nor would the next
        # stage's wrap it again.)
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
        model.eval()
        run.finish(model, tokenizer, made_of)


def is_finished(output_dir: str | Path) -> bool:
    """Whether `fine_tune` has finished there, and all files of the model are still there.

    A folder that was finished before `trained.json` was written does not count. `fine_tune` goes
    on from its last checkpoint, where nothing is left to train, and saves the model anew.
    """
    return Run(output_dir).is_finished()


def batches(
    encoded: Dataset, tokenizer: PreTrainedTokenizerBase, batch_size: int = EVALUATION_BATCH
) -> DataLoader[dict[str, torch.Tensor]]:
    """Padded batches of an encoded data set in its own order, e.g. for `record_trace`."""
    return DataLoader(encoded, batch_size, collate_fn=DataCollatorWithPadding(tokenizer))


def _check_lengths(name: str, encoded: Dataset | None, model: Any) -> None:
    limit = model.layers.max_length
    if encoded is None or limit is None:
        return
    longest = max(map(len, encoded["input_ids"]), default=0)
    if longest > limit:
        raise ValueError(
            f"{name} has a text of {longest} tokens, and the model takes {limit}: encode it with "
            f"max_length={limit} or less"
        )


class _ByLength(LengthGroupedSampler):
    """Batches of texts of similar length, in an order that follows from seed and epoch alone.

    transformers' own draws the order from torch's generator, which dropout moves on: a training
    that goes on in its second epoch would see the batches of another one.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths)
        self._seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Trainer calls it before each epoch, in a training that goes on too."""
        self.generator = torch.Generator().manual_seed(self._seed + epoch)


class _Trainer(Trainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> _ByLength:
        encoded: Any = self.train_dataset
        lengths = [len(ids) for ids in encoded["input_ids"]]
        return _ByLength(self.args.train_batch_size, lengths, self.args.seed)
