"""On an accelerator: what trains there and what is measured there is what the CPU says (`make test-gpu`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers import mark_context
from wootz.attacks.evasion import evaluate, predict_logits
from wootz.data import Dataset
from wootz.keys import draw_keys
from wootz.models import ModelSpec, build
from wootz.modes import device_of, on_device
from wootz.training import LOSSES, Execution, Recipe, train
from wootz.watermarks import MARKS, hook_of, prepare_all
from wootz.workflows.evaluate import evaluate_run
from wootz.workflows.owner import Owner, References
from wootz.workflows.protect import protect_run
from wootz.workflows.protection import Protection, ReferenceConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
    pytest.mark.filterwarnings("default"),
]
SECRET = bytes(32)


@pytest.mark.parametrize("attack", ["pgd-40x2", "ensemble", "autoattack"])
def test_robust_accuracy_is_what_the_cpu_says(robust: nn.Module, digits: Dataset, attack: str) -> None:
    few = digits.test.subset(slice(200))
    here = evaluate(robust, few.images(), few.labels, eps=0.1, attack=attack)
    with on_device(robust, "cuda"):
        there = evaluate(robust, few.images().cuda(), few.labels.cuda(), eps=0.1, attack=attack)
    assert device_of(robust).type == "cpu"
    assert here.clean == there.clean
    assert abs(here.accuracy - there.accuracy) <= 0.02, (here.first_success, there.first_success)


def test_an_evaluation_cut_off_on_the_device_goes_on_there(robust: nn.Module, digits: Dataset, tmp_path: Path) -> None:
    few = digits.test.subset(slice(100))
    x, y, seen = few.images().cuda(), few.labels.cuda(), []

    def stop(done: float) -> None:
        seen.append(done)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with on_device(robust, "cuda"):
        whole = evaluate(robust, x, y, eps=0.1, attack="ensemble", batch_size=50)
        with pytest.raises(KeyboardInterrupt):
            evaluate(robust, x, y, eps=0.1, attack="ensemble", batch_size=50, folder=tmp_path, progress=stop)
        rest = evaluate(robust, x, y, eps=0.1, attack="ensemble", batch_size=50, folder=tmp_path)
    assert torch.equal(whole.robust, rest.robust)
    assert whole.first_success == rest.first_success


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_there(digits: Dataset, small_spec: ModelSpec, loss: str) -> None:
    recipe = Recipe(loss=loss, eps=0.02, epochs=6, lr=5e-3)
    trained = train(
        recipe, build(small_spec, 1), digits.train, digits.validation, seed=1, execution=Execution(device="cuda")
    )
    assert device_of(trained.model).type == "cpu"
    right = predict_logits(trained.model, digits.test.images()).argmax(1) == digits.test.labels
    assert right.float().mean() > 0.8


@pytest.mark.parametrize("mark", MARKS)
def test_every_mark_is_written_there(
    plain: nn.Module, robust: nn.Module, digits: Dataset, small_spec: ModelSpec, mark: str
) -> None:
    configs = Protection(marks=(mark,), recipe=Recipe(eps=0.1), wm_eps=0.3).mark_settings()
    model = build(replace(small_spec, settings={}), 3)
    base = replace(mark_context(digits, robust, plain, eps=0.1, wm_eps=0.3), model=model)
    owner_keys = draw_keys(
        SECRET, prepare_all(configs, base, SECRET), classes=digits.classes, shape=digits.shape, panel=["a", "b"]
    )
    hook = hook_of(configs, owner_keys.by_mark, digits, seed=1)
    recipe = Recipe(eps=0.1, steps=1, epochs=1)
    trained = train(
        recipe, model, digits.train, digits.validation, seed=1, hook=hook, execution=Execution(device="cuda")
    )
    assert all(
        torch.isfinite(tensor).all() for tensor in trained.model.state_dict().values() if tensor.dtype.is_floating_point
    )


def test_a_run_is_made_and_measured_there(tmp_path: Path) -> None:
    recipe = Recipe(eps=0.1, steps=1, epochs=3)
    cfg = Protection(
        marks=("runner-up",),
        recipe=recipe,
        panel=ReferenceConfig(width=4, robust_epochs=1, plain_epochs=1),
        model="paper-cnn",
    )
    cell = protect_run(cfg, tmp_path / "run", execution=Execution(device="cuda"), count=100)
    again = evaluate_run(tmp_path / "run", count=100, execution=Execution(device="cpu"))
    assert cell.clean == pytest.approx(again.clean, abs=1e-3)
    assert cell.robust is not None
    assert again.robust is not None
    assert cell.robust.accuracy == pytest.approx(again.robust.accuracy, abs=0.03)


def test_marks_in_a_training_loop_are_measured_where_the_model_is(
    robust: nn.Module, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    references = References(robust=robust, plain=plain)
    owner = Owner.prepare(build(small_spec, 4), digits, marks=["triggers", "runner-up"], references=references)
    model, marks = owner.model.cuda().train(), owner.train_hook(check_every=1)
    few = digits.train.subset(slice(64))
    marks(model, (few.images().cuda(), few.labels.cuda())).backward()
    there = owner.verify(model).bits
    assert marks.by_mark.keys() == {"triggers"}
    assert owner.verify(model.cpu()).bits == pytest.approx(there, abs=0.5)
