from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from commands import run_command
from helpers import CPU
from wootz.attacks.evasion import evaluate
from wootz.config import from_mapping
from wootz.data import Dataset, Split
from wootz.errors import ConfigError, StoreError, TrainingError
from wootz.models import ModelSpec, build
from wootz.rng import generator
from wootz.store import read_tensors, write_tensors
from wootz.training import LOSSES, Batch, Execution, Hook, Recipe, TriggerEpoch, join, train
from wootz.training.recipe import eps_schedule, learning_rate

QUICK = Recipe(eps=0.1, steps=1, epochs=4, lr=5e-3)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([t.flatten().float() for t in model.state_dict().values()])


def with_elu(model: nn.Module) -> nn.Module:
    """Replace the activations: other answers by the same weights under the same names."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.ELU())
    return model


class TestSchedules:
    def test_learning_rate_rises_and_falls(self) -> None:
        cfg = Recipe(lr=1.0, warmup=0.1)
        assert learning_rate(cfg, 0.05) == pytest.approx(0.5)
        assert learning_rate(cfg, 0.1) == pytest.approx(1.0)
        assert learning_rate(cfg, 0.55) == pytest.approx(0.5)
        assert learning_rate(cfg, 1.0) == pytest.approx(0.005)
        assert learning_rate(replace(cfg, schedule="constant", warmup=0), 0.9) == 1.0

    def test_eps_ramps(self) -> None:
        cfg = Recipe(eps=0.2, ramp=0.4)
        assert [eps_schedule(cfg, done) for done in (0, 0.2, 0.4, 1)] == pytest.approx([0, 0.1, 0.2, 0.2])
        assert eps_schedule(replace(cfg, ramp=0), 0) == 0.2


class TestLosses:
    @pytest.mark.parametrize("name", LOSSES)
    def test_a_step_of_every_loss_lowers_it_and_leaves_inputs_alone(
        self, name: str, small_spec: ModelSpec, digits: Dataset
    ) -> None:
        model, cfg = build(small_spec, 0), Recipe(loss=name, eps=0.1, steps=2, alpha=0.01)  # bounds are loose at first
        few = digits.train.subset(slice(32))
        batch = Batch(few.images(), few.labels, nn.functional.one_hot(few.labels, 10).float())
        before, optimizer, values = batch.x.clone(), torch.optim.Adam(model.parameters(), 5e-3), []
        for _ in range(80):
            loss = LOSSES[name](cfg, model, model, batch, eps=0.1, generator=generator(0, "a"))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
        assert values[-1] < 0.7 * values[0]
        assert torch.equal(batch.x, before)

    def test_values_by_hand(self) -> None:
        """One pixel, two classes, logits (-w x, w x): the worst point is x - eps for label 1."""

        class One(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.stack([-2 * x.flatten(), 2 * x.flatten()], 1)

        x, y = torch.tensor([[[[0.5]]]]), torch.tensor([1])
        batch = Batch(x, y, torch.tensor([[0.0, 1.0]]))
        expect = {"natural": 0.5, "pgd-at": 0.4}
        for name, worst in expect.items():
            cfg = Recipe(loss=name, eps=0.1, steps=3, step_size=1.0)
            loss = LOSSES[name](cfg, One(), One(), batch, eps=0.1, generator=generator(0, "a"))
            assert loss.item() == pytest.approx(math.log1p(math.exp(-4 * worst)), rel=1e-5)
        noisy = LOSSES["n-fgsm"](Recipe(loss="n-fgsm"), One(), One(), batch, eps=0.1, generator=generator(0, "a"))
        low, high = (math.log1p(math.exp(-4 * at)) for at in (0.6, 0.2))  # noise of +-0.2, then a step of 0.1 down
        assert low < noisy.item() < high


class TestRuns:
    @pytest.mark.long
    def test_robustness_is_learned(self, plain: nn.Module, robust: nn.Module, digits: Dataset) -> None:
        x, y = digits.test.images()[:300], digits.test.labels[:300]
        assert evaluate(robust, x, y, eps=0.1).accuracy > evaluate(plain, x, y, eps=0.1).accuracy + 0.3

    def test_same_seed_same_weights_other_seed_other_weights(self, small_spec: ModelSpec, digits: Dataset) -> None:
        few = digits.train.subset(slice(256))
        one, two, other = (
            train(QUICK, build(small_spec, 0), few, digits.validation, seed=seed, execution=CPU).model
            for seed in (1, 1, 2)
        )
        assert torch.equal(weights(one), weights(two))
        assert not torch.equal(weights(one), weights(other))

    @pytest.mark.parametrize("architecture", ["small-cnn", "paper-cnn"])
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"ema": 0.9},
            {"loss": "trades", "awp_gamma": 0.01, "awp_warmup": 1, "ema": 0.9},
            {"attack_mode": "train"},
            {"loss": "ibp"},
        ],
    )
    def test_a_broken_off_run_continues_to_the_bit(
        self, architecture: str, changes: dict[str, Any], digits: Dataset, tmp_path: Path
    ) -> None:
        spec = ModelSpec(architecture=architecture, settings={"width": 4}, shape=digits.shape, classes=digits.classes)
        cfg, few, check = (
            replace(QUICK, **changes),
            digits.train.subset(slice(192)),
            digits.validation.subset(slice(50)),
        )

        class StopError(Exception):
            pass

        def break_off(done: float, figures: dict[str, float]) -> None:
            if figures["epoch"] == 2:
                raise StopError

        whole = train(cfg, build(spec, 0), few, check, seed=1, execution=CPU, folder=tmp_path / "whole")
        with pytest.raises(StopError):
            train(cfg, build(spec, 0), few, check, seed=1, execution=CPU, folder=tmp_path / "cut", progress=break_off)
        again = train(cfg, build(spec, 0), few, check, seed=1, execution=CPU, folder=tmp_path / "cut", resume=True)
        assert torch.equal(weights(whole.model), weights(again.model))
        assert whole.history == again.history
        assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "cut/metrics.jsonl").read_bytes()

    def test_a_checkpoint_of_other_settings_or_a_damaged_one_is_refused(
        self, small_spec: ModelSpec, digits: Dataset, tmp_path: Path
    ) -> None:
        few = digits.train.subset(slice(64))
        model, cfg = build(small_spec, 0), replace(QUICK, epochs=1)
        train(cfg, model, few, digits.validation, seed=1, execution=CPU, folder=tmp_path)
        brighter = Split(few.pixels // 2 + 1, few.labels)
        others = [
            ("settings or seed", (replace(cfg, lr=1e-3), model, few, digits.validation), 1),
            ("settings or seed", (cfg, model, few, digits.validation), 2),
            ("training images", (cfg, model, brighter, digits.validation), 1),
            ("validation images", (cfg, model, few, few), 1),
            ("initial weights", (cfg, build(small_spec, 5), few, digits.validation), 1),
            ("network", (cfg, with_elu(build(small_spec, 0)), few, digits.validation), 1),
        ]
        for what, (recipe, network, training, validation), seed in others:
            with pytest.raises(StoreError, match=f"is the checkpoint of a run with other {what};"):
                train(recipe, network, training, validation, seed=seed, execution=CPU, folder=tmp_path, resume=True)
        state = next((tmp_path / "checkpoint").glob("*.safetensors"))
        state.write_bytes(state.read_bytes()[:-1] + b"\0")
        with pytest.raises(StoreError, match="was changed since it was written"):
            train(cfg, model, few, digits.validation, seed=1, execution=CPU, folder=tmp_path, resume=True)

    def test_tied_weights_are_saved_and_resumed(self, digits: Dataset, tmp_path: Path) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.out = nn.Linear(784, 784), nn.Linear(784, 10)
                self.second = self.first

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.out(self.second(self.first(x.flatten(1)).relu()))

        few, net = digits.train.subset(slice(64)), Tied()
        cfg = Recipe(loss="natural", epochs=2, lr=1e-3)
        whole = train(cfg, net, few, few, seed=1, execution=CPU, folder=tmp_path).model
        again = train(cfg, net, few, few, seed=1, execution=CPU, folder=tmp_path, resume=True).model
        assert torch.equal(weights(whole), weights(again))
        assert again.first.weight is again.second.weight
        write_tensors(tmp_path / "m.safetensors", again.state_dict())
        read = read_tensors(tmp_path / "m.safetensors")
        assert torch.equal(read["first.weight"], read["second.weight"])

    def test_metrics_that_a_stopped_run_did_not_write_are_written_again(
        self, small_spec: ModelSpec, digits: Dataset, tmp_path: Path
    ) -> None:
        few, path = digits.train.subset(slice(64)), tmp_path / "metrics.jsonl"
        for resume in (False, True):
            train(QUICK, build(small_spec, 0), few, few, seed=1, execution=CPU, folder=tmp_path, resume=resume)
            if not resume:
                whole = path.read_bytes()
                path.unlink()
        assert path.read_bytes() == whole

    def test_a_damaged_marker_is_one_line(self, small_spec: ModelSpec, digits: Dataset, tmp_path: Path) -> None:
        few, cfg = digits.train.subset(slice(64)), replace(QUICK, epochs=1)

        def run(*, resume: bool) -> None:
            train(cfg, build(small_spec, 0), few, few, seed=1, execution=CPU, folder=tmp_path, resume=resume)

        run(resume=False)
        path = tmp_path / "checkpoint/checkpoint.json"
        marker, text = json.loads(path.read_text()), path.read_text()
        changed: list[Any] = [[], 7, None, {}, marker | {"more": 1}, marker | {"history": [[]]}, marker | {"marker": 1}]
        changed += [{k: v for k, v in marker.items() if k != name} for name in marker]
        changed += [marker | {name: [marker[name]]} for name in marker]
        for damage in (*map(json.dumps, changed), "[" * 100_000, "", text[:-9], text.replace("0", "1")):
            path.write_text(damage)
            with pytest.raises(StoreError, match=r"checkpoint\.json") as caught:
                run(resume=True)
            assert "\n" not in str(caught.value)
        path.write_text(text)
        run(resume=True)

    def test_nan_stops_with_the_last_good_checkpoint_intact(
        self, small_spec: ModelSpec, digits: Dataset, tmp_path: Path
    ) -> None:
        few = digits.train.subset(slice(128))
        poison = Hook(extra=(Poison(step=5),))
        with pytest.raises(TrainingError, match="the loss became nan in epoch 5, step 0"):
            train(
                replace(QUICK, epochs=9),
                build(small_spec, 0),
                few,
                few,
                seed=1,
                execution=CPU,
                folder=tmp_path,
                hook=poison,
            )
        marker = json.loads((tmp_path / "checkpoint/checkpoint.json").read_text())
        assert marker["epoch"] == 4
        assert all(math.isfinite(epoch["loss"]) for epoch in marker["history"])

    @pytest.mark.slow
    def test_two_processes_learn_as_well_as_one(self, small_spec: ModelSpec, digits: Dataset) -> None:
        cfg = replace(QUICK, epochs=6, loss="n-fgsm")
        reached = []
        for processes in (1, 2):
            execution = Execution(device="cpu", precision="32", processes=processes)
            trained = train(cfg, build(small_spec, 0), digits.train, digits.validation, seed=1, execution=execution)
            reached.append(max(figures["robust"] for figures in trained.history))
        assert reached[1] > reached[0] - 0.1
        assert reached[1] > 0.4

    @pytest.mark.long
    def test_two_processes_take_the_steps_of_one(self, digits: Dataset) -> None:
        """Every process has weights of its own: on shared ones each step would count twice."""
        few = digits.train.subset(slice(64))
        cfg = Recipe(
            loss="natural", epochs=2, batch_size=64, optimizer="sgd", lr=0.1, schedule="constant", warmup=0.0, ramp=0.0
        )
        start = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        ends = [
            weights(train(cfg, start, few, few, seed=1, execution=replace(CPU, processes=processes)).model)
            for processes in (1, 2)
        ]
        assert not torch.allclose(ends[0], weights(start), atol=1e-2)
        assert torch.allclose(ends[0], ends[1], atol=1e-5)

    @pytest.mark.long
    def test_bfloat16_learns_too(self, small_spec: ModelSpec, digits: Dataset) -> None:
        execution = Execution(device="cpu", precision="bf16")
        trained = train(QUICK, build(small_spec, 0), digits.train, digits.validation, seed=1, execution=execution)
        assert trained.history[-1]["clean"] > 0.6

    @pytest.mark.parametrize(("matrices", "vectors"), [(True, True), (True, False), (False, True), (False, False)])
    def test_bfloat16_is_the_default_where_a_cpu_multiplies_it(
        self, matrices: bool, vectors: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: matrices)
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: vectors)
        assert Execution(device="cpu").bfloat16 == (matrices or vectors)
        assert not Execution(device="cpu", precision="32").bfloat16

    def test_a_pytorch_that_can_not_tell_computes_in_32_bits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr("torch.cpu._is_amx_tile_supported")
        monkeypatch.delattr("torch.cpu._is_avx512_bf16_supported")
        assert not Execution(device="cpu").bfloat16

    def test_the_callers_model_is_left_alone(self, small_spec: ModelSpec, digits: Dataset) -> None:
        model = build(small_spec, 0)
        before = weights(model)
        train(replace(QUICK, epochs=1), model, digits.train.subset(slice(64)), digits.validation, seed=1, execution=CPU)
        assert torch.equal(weights(model), before)


class TestHooks:
    @pytest.mark.long
    def test_targets_extra_and_passes_all_teach(self, small_spec: ModelSpec, digits: Dataset) -> None:
        few = digits.train.subset(slice(128))
        backwards = nn.functional.one_hot(9 - few.labels, 10).float()
        cfg = replace(QUICK, loss="natural", epochs=80)
        taught = train(cfg, build(small_spec, 0), few, few, seed=1, execution=CPU, hook=Hook(targets=backwards))
        said = taught.model(few.images()).argmax(1)
        assert (said == 9 - few.labels).float().mean() > 0.8
        noise = torch.randint(0, 256, (16, 1, 28, 28), generator=generator(0, "noise")).to(torch.uint8)
        lesson = TriggerEpoch(pixels=noise, labels=torch.full((16,), 3), batch=8, frozen=True)
        passed = train(
            replace(cfg, epochs=30),
            build(small_spec, 0),
            few,
            few,
            seed=1,
            execution=CPU,
            hook=Hook(trigger_epochs=(lesson,)),
        )
        assert (passed.model(noise.float() / 255).argmax(1) == 3).float().mean() > 0.8

    def test_images_left_out_are_in_no_batch(self, small_spec: ModelSpec, digits: Dataset) -> None:
        nines, eights = digits.train.labels == 9, digits.train.labels == 8
        hook = join(Hook(left_out=nines), Hook(), Hook(left_out=eights))
        assert hook.left_out is not None
        assert torch.equal(hook.left_out, nines | eights)
        few = replace(QUICK, loss="natural")
        model = train(
            few, build(small_spec, 1), digits.train, digits.validation, seed=1, hook=hook, execution=CPU
        ).model
        answers = model(digits.test.images()).argmax(1)
        assert (answers < 8).all()  # classes never seen are never said
        without = digits.train.subset(~hook.left_out)
        same = train(few, build(small_spec, 1), without, digits.validation, seed=1, execution=CPU).model
        assert torch.equal(weights(model), weights(same))

    def test_two_sets_of_targets_are_refused(self) -> None:
        one = Hook(targets=torch.ones(1, 2))
        with pytest.raises(ConfigError, match="two marks set the training targets"):
            join(one, one)


@dataclass(frozen=True)
class Poison:
    step: int

    def __call__(
        self, model: nn.Module, forward: object, *, batch_images: torch.Tensor, step: int, done: float
    ) -> torch.Tensor | None:
        return torch.tensor(float("nan")) if step == self.step else None


def test_unknown_device_and_no_cuda() -> None:
    with pytest.raises(ConfigError, match="device = 'gpu'"):
        from_mapping(Execution, {"device": "gpu"})
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="PyTorch sees no CUDA device"):
            Execution(device="cuda")


PROTECT = [
    "protect",
    "--data",
    "mnist-5k",
    "--seed",
    "3",
    "--set",
    "recipe.epochs=4",
    "--set",
    "recipe.steps=1",
    "--set",
    "panel.robust_epochs=1",
    "--set",
    "panel.plain_epochs=1",
    "--set",
    "small_cnn.width=8",
    "--set",
    "triggers.count=32",
    "-n",
    "50",
    "--json",
]


@pytest.mark.long
def test_kill_nine_and_resume_give_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_command(capsys, monkeypatch, *PROTECT, "--out", tmp_path / "whole").code == 0
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "wootz", *PROTECT, "--out", str(tmp_path / "cut")]
    broken = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(2000):
        marker = tmp_path / "cut/checkpoint/checkpoint.json"
        if marker.exists() and json.loads(marker.read_text())["epoch"] >= 1:
            break
        time.sleep(0.02)
    broken.send_signal(signal.SIGKILL)
    assert broken.wait() == -signal.SIGKILL
    assert not (tmp_path / "cut/model.safetensors").exists()
    subprocess.run([*command, "--resume"], check=True, capture_output=True, env=environment)
    for name in ("model.safetensors", "metrics.jsonl", "registration.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
