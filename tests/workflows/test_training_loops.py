"""Marks in training loops that are not ours: a plain loop, Lightning's Trainer and Hugging Face's Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from helpers import CPU
from wootz.data import Dataset
from wootz.models import ModelSpec, build
from wootz.training import Recipe
from wootz.watermarks import RunnerUp, Triggers
from wootz.workflows.owner import Owner, References
from wootz.workflows.protection import Protection

EPOCHS, LR = 12, 5e-3


@pytest.fixture
def prepared(digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module) -> Owner:
    cfg = Protection(
        data="mnist-5k",
        model="small-cnn",
        marks=("triggers", "runner-up"),
        wm_eps=0.6,
        recipe=Recipe(eps=0.1),
        triggers=Triggers(count=160, every=1, batch=64, recall=1.0, weight=1.0),
        runner_up=RunnerUp(features=15, tau=3.0),
    )
    return Owner.prepare(
        build(small_spec, 4), digits, config=cfg, references=References(robust=robust, plain=plain), execution=CPU
    )


@pytest.fixture
def images(digits: Dataset) -> TensorDataset:
    return TensorDataset(digits.train.images(), digits.train.labels)


def shown(owner: Owner) -> bool:
    return owner.verify(owner.model.eval()).outcome == "KEY-DEPENDENT"


def test_a_model_that_was_not_trained_with_the_hook_shows_nothing(prepared: Owner, plain: nn.Module) -> None:
    assert prepared.verify(plain).outcome == "NOT SHOWN"


def test_plain_loop(prepared: Owner, images: TensorDataset, tmp_path: Path) -> None:
    model = prepared.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    marks = prepared.train_hook()
    for _ in range(EPOCHS):
        for x, y in DataLoader(images, batch_size=128, shuffle=True):
            loss = F.cross_entropy(model(x), y)
            loss = loss + marks(model, (x, y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert shown(prepared)
    prepared.save(tmp_path / "run")
    assert Owner.load(tmp_path / "run").verify(tmp_path / "run").outcome == "KEY-DEPENDENT"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Lightning warns of its own deprecations and of few workers
def test_lightning(prepared: Owner, images: TensorDataset, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = prepared.model
            self.marks = prepared.train_hook()

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            x, y = batch
            return F.cross_entropy(self.net(x), y) + self.marks(self.net, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=LR)

    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), DataLoader(images, batch_size=128, shuffle=True))
    assert shown(prepared)


@pytest.mark.long
def test_hugging_face(prepared: Owner, digits: Dataset, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    marks = prepared.train_hook()

    class MarkTrainer(transformers.Trainer):  # type: ignore[misc,name-defined]
        def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], **_: Any) -> Tensor:
            loss = F.cross_entropy(model(inputs["pixel_values"]), inputs["labels"])
            return loss + marks(model, inputs)

    x, y = digits.train.images(), digits.train.labels
    rows = [{"pixel_values": image, "labels": label} for image, label in zip(x, y, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=128,
        learning_rate=LR,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    MarkTrainer(model=prepared.model, args=arguments, train_dataset=rows).train()
    assert shown(prepared)
