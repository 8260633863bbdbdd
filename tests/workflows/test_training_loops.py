"""Marks in training loops that are not ours: a plain loop, Lightning's Trainer and Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from helpers import CPU
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.models import ModelSpec, build, make_network
from wootz.workflows.mark import mark
from wootz.workflows.owner import Owner, References

RESNET = Path(__file__).parents[2] / "examples" / "resnet.py"
BITS, EPOCHS, LR = 60, 30, 5e-3


def resnet_with_dropout(data: Dataset) -> nn.Module:
    """A network whose answers in train mode differ from those in eval mode in both usual ways."""
    network = make_network(f"{RESNET}:make", {"width": 4}, data.shape, len(data.classes))
    network.head = nn.Sequential(nn.Dropout(0.2), network.head)
    return network


@pytest.fixture
def prepare(digits: Dataset, plain: nn.Module, robust: nn.Module) -> Callable[..., Owner]:
    return lambda network, marks=("triggers", "runner-up"), settings=(): Owner.prepare(
        network,
        digits,
        marks=marks,
        settings=settings,
        eps=0.1,
        wm_eps=0.6,
        references=References(robust=robust, plain=plain),
        execution=CPU,
    )


@pytest.fixture
def prepared(prepare: Callable[..., Owner], small_spec: ModelSpec) -> Owner:
    return prepare(build(small_spec, 4))


@pytest.fixture
def images(digits: Dataset) -> TensorDataset:
    return TensorDataset(digits.train.images(), digits.train.labels)


def trained(owner: Owner, images: TensorDataset, marks: Any, steps: int = 100_000) -> None:
    """Train as the documentation says, with no more than so many further steps."""
    model, last = owner.model.train(), marks.steps + steps
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    for _ in range(EPOCHS):
        for x, y in DataLoader(images, batch_size=64, shuffle=True):
            loss = F.cross_entropy(model(x), y)
            loss = loss + marks(model, (x, y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if marks.enough or marks.steps >= last:
                return


def added(owner: Owner, images: TensorDataset, marks: Any) -> float:
    """Return the loss that the marks add to one more step."""
    x, y = images[:8]
    value: float = marks(owner.model, (x, y)).item()
    return value


def test_a_model_that_was_not_trained_with_the_hook_shows_nothing(prepared: Owner, plain: nn.Module) -> None:
    assert prepared.verify(plain).outcome == "NOT SHOWN"


def test_a_plain_loop_stops_when_the_bits_are_there(
    prepared: Owner, images: TensorDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marks = prepared.train_hook(bits=BITS)
    assert not marks.enough
    trained(prepared, images, marks)
    assert marks.enough
    assert marks.steps % 25 == 0
    assert prepared.model.training
    assert added(prepared, images, marks) == 0
    assert prepared.verify(prepared.model).bits >= BITS
    prepared.save(tmp_path / "run")
    assert not caplog.records
    assert Owner.load(tmp_path / "run").verify(tmp_path / "run").outcome == "KEY-DEPENDENT"


def test_normalized_batches_and_dropout_are_no_obstacle(
    prepare: Callable[..., Owner], digits: Dataset, images: TensorDataset
) -> None:
    torch.manual_seed(0)
    owner = prepare(resnet_with_dropout(digits))
    marks = owner.train_hook(bits=BITS)
    trained(owner, images, marks)
    assert owner.verify(owner.model).bits >= BITS


def test_lost_bits_are_trained_again(prepared: Owner, images: TensorDataset, small_spec: ModelSpec) -> None:
    marks = prepared.train_hook(bits=BITS, check_every=5)
    trained(prepared, images, marks)
    assert marks.enough
    prepared.model.load_state_dict(build(small_spec, 9).state_dict())
    first = [added(prepared, images, marks) for _ in range(5)]
    assert first == [0] * 5
    assert not marks.enough
    assert marks.bits < BITS
    assert added(prepared, images, marks) > 0


def test_a_training_that_ends_too_early_is_told_so(
    prepared: Owner, images: TensorDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marks = prepared.train_hook(bits=1000)
    trained(prepared, images, marks, steps=2)
    prepared.save(tmp_path / "run")
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith("the marks give ")
    assert "after 2 steps (triggers " in line
    assert "less than the 1000 wanted; train for more steps" in line
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_evaluations_add_no_loss_and_count_no_step(prepared: Owner, images: TensorDataset) -> None:
    marks = prepared.train_hook()
    with torch.no_grad():
        assert added(prepared, images, marks) == 0
    assert marks.steps == 0


def test_each_mark_is_wanted_evenly_only_for_a_while(prepared: Owner, images: TensorDataset) -> None:
    """Triggers that have all the bits alone suffice at once, or after `even_steps`."""
    trained(prepared, images, prepared.train_hook(bits=BITS))
    for even_steps, enough in ((0, True), (2, False), (1, True)):
        marks = prepared.train_hook(bits=BITS / 2, even_steps=even_steps, check_every=2)
        trained(prepared, images, marks, steps=2)
        assert marks.by_mark["triggers"] > marks.by_mark["runner-up"]
        assert marks.enough == enough


def test_a_mark_in_the_weights_is_measured_there(
    prepare: Callable[..., Owner], images: TensorDataset, small_spec: ModelSpec
) -> None:
    owner = prepare(build(small_spec, 4), ["uchida"], {"uchida.bits": 64, "uchida.weight": 1.0})
    marks = owner.train_hook(bits=20)
    trained(owner, images, marks)
    assert marks.enough
    assert marks.by_mark["uchida"] >= 20


@pytest.mark.parametrize(("option", "name"), [({"bits": 0}, "bits"), ({"check_every": 0}, "check_every")])
def test_a_setting_out_of_range_is_named(prepared: Owner, option: dict[str, int], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        prepared.train_hook(**option)


def test_marks_that_no_model_carries_are_refused(digits: Dataset, plain: nn.Module, robust: nn.Module) -> None:
    options = {"marks": ["guard"], "references": References(robust=robust, plain=plain), "execution": CPU}
    with pytest.raises(ConfigError, match="a model carries none of guard; add triggers or runner-up"):
        Owner.prepare("small-cnn", digits, **options).train_hook()
    with pytest.raises(ConfigError, match="a model carries none of guard; add triggers or runner-up"):
        mark(plain, digits, **options)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Lightning warns of its own deprecations and of few workers
def test_lightning(prepared: Owner, images: TensorDataset, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = prepared.model
            self.marks = prepared.train_hook(bits=BITS)

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            x, y = batch
            loss = F.cross_entropy(self.net(x), y) + self.marks(self.net, batch)
            self.trainer.should_stop = self.marks.enough
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=LR)

    module = Classifier()
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(images, batch_size=64, shuffle=True))
    assert module.marks.enough
    assert trainer.global_step == module.marks.steps
    assert prepared.verify(prepared.model).bits >= BITS


@pytest.mark.long
def test_hugging_face(prepared: Owner, digits: Dataset, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    marks = prepared.train_hook(bits=BITS)

    class MarkTrainer(transformers.Trainer):  # type: ignore[misc,name-defined]
        def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], **_: Any) -> Tensor:
            loss = F.cross_entropy(model(inputs["pixel_values"]), inputs["labels"]) + marks(model, inputs)
            self.control.should_training_stop = marks.enough
            return loss

    x, y = digits.train.images(), digits.train.labels
    rows = [{"pixel_values": image, "labels": label} for image, label in zip(x, y, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=64,
        learning_rate=LR,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = MarkTrainer(model=prepared.model, args=arguments, train_dataset=rows)
    trainer.train()
    assert marks.enough
    assert trainer.state.global_step == marks.steps
    assert prepared.verify(prepared.model).bits >= BITS
