"""Add the marks to three training loops that are not ours, as docs/python.md says, and measure when they are there.

    python benchmarks/loops.py FOLDER [--images 2000] [--size 32] [--network small-cnn]

FOLDER holds class folders, such as benchmarks/clipart.py makes. The loops are a plain one of PyTorch, Lightning's
Trainer and Hugging Face's. Each goes on for 20 epochs and until `marks.enough` is true; the same loop without marks
takes as many steps from the same initial weights. Needs lightning, transformers and accelerate.
"""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import wootz
from wootz.data import Dataset, Split
from wootz.models import ModelSpec, build
from wootz.workflows.evaluate import clean_accuracy
from wootz.workflows.inputs import as_dataset
from wootz.workflows.mark_loss import MarkLoss

RESNET = "examples/resnet.py:make"
BATCH, LR, MOST_STEPS = 64, 1e-3, 2000


def some_images(folder: str, size: int, count: int) -> Dataset:
    """Return `count` images of a folder, chosen at random, as a data set with splits of its own."""
    data = wootz.load(folder, size=size)
    parts = (data.train, data.validation, data.probes, data.thief, data.test)
    images = Split(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))
    return as_dataset(images.subset(torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]))


class Steps:
    """The loss that marks add, if there are any, and the end of the loop: so many steps, and marks that are enough."""

    def __init__(self, marks: MarkLoss | None, least: int) -> None:
        self.marks, self.least, self.count = marks, least, 0
        self.enough_after: int | None = None

    def __call__(self, model: nn.Module, batch: Any) -> Tensor | float:
        """Return what the marks add to the loss of one more step."""
        self.count += 1
        if self.marks is None:
            return 0.0
        loss = self.marks(model, batch)
        if self.marks.enough and self.enough_after is None:
            self.enough_after = self.count
        return loss

    @property
    def done(self) -> bool:
        """Whether the loop may stop."""
        return self.count >= self.least and (self.marks is None or self.marks.enough)


def plain(model: nn.Module, images: TensorDataset, steps: Steps) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    model.train()
    while steps.count < MOST_STEPS:
        for x, y in DataLoader(images, batch_size=BATCH, shuffle=True):
            loss = F.cross_entropy(model(x), y) + steps(model, (x, y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if steps.done:
                return


def with_lightning(model: nn.Module, images: TensorDataset, steps: Steps) -> None:
    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def training_step(self, batch: Any, _: int) -> Tensor:
            x, y = batch
            loss = F.cross_entropy(self.net(x), y) + steps(self.net, batch)
            self.trainer.should_stop = steps.done
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=LR)

    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(max_steps=MOST_STEPS, accelerator="cpu", **dict.fromkeys(quiet, False))
    trainer.fit(Classifier(), DataLoader(images, batch_size=BATCH, shuffle=True))


def with_hugging_face(model: nn.Module, images: TensorDataset, steps: Steps) -> None:
    class MarkTrainer(transformers.Trainer):
        def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], **_: Any) -> Tensor:
            loss = F.cross_entropy(model(inputs["pixel_values"]), inputs["labels"]) + steps(model, inputs)
            self.control.should_training_stop = steps.done
            return loss

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            max_steps=MOST_STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            lr_scheduler_type="constant",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
        )
        rows = [{"pixel_values": x, "labels": y} for x, y in images]
        trainer = MarkTrainer(model=model, args=arguments, train_dataset=rows)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()


Loop = Callable[[nn.Module, TensorDataset, Steps], None]
LOOPS: Mapping[str, Loop] = {"plain PyTorch": plain, "Lightning": with_lightning, "Hugging Face": with_hugging_face}


def measured(loop: Loop, model: nn.Module, train: TensorDataset, steps: Steps, data: Dataset) -> tuple[float, float]:
    """Train, and return the clean accuracy in percent and the seconds."""
    begin = time.perf_counter()
    loop(model, train, steps)
    seconds = time.perf_counter() - begin
    return 100 * clean_accuracy(model.cpu(), data), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--network", default=RESNET)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    data, references = some_images(given.folder, given.size, given.images), None
    train = TensorDataset(data.train.images(), data.train.labels)
    least = given.epochs * math.ceil(len(train) / BATCH)
    settings = {"width": 16} if given.network == RESNET else {}
    spec = ModelSpec(architecture=given.network, settings=settings, shape=data.shape, classes=data.classes)
    print(f"{given.network}: {len(train)} of {given.images} images to train on, {len(data.classes)} classes")
    print("| loop | enough after | steps | bits | triggers | runner-up | clean | unmarked | seconds | unmarked |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, loop in LOOPS.items():
        owner = wootz.Owner.prepare(build(spec, 0), data, marks=["triggers", "runner-up"], references=references)
        steps, references, unmarked = Steps(owner.train_hook(), least), owner.references, build(spec, 0)
        clean, seconds = measured(loop, owner.model, train, steps, data)
        unmarked_clean, unmarked_seconds = measured(loop, unmarked, train, Steps(None, steps.count), data)
        verdict = owner.verify(owner.model)
        bits = [verdict.bits, *(item.bits for item in verdict.evidence)]
        figures = [steps.enough_after, steps.count, *(f"{value:.0f}" for value in bits)]
        figures += [f"{clean:.1f}", f"{unmarked_clean:.1f}", f"{seconds:.0f}", f"{unmarked_seconds:.0f}"]
        print("|", name, "|", " | ".join(map(str, figures)), "|", flush=True)


if __name__ == "__main__":
    main()
