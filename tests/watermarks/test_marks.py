from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import wootz
from helpers import CPU, mark_context, settings_of
from wootz.attacks.evasion import predict_logits
from wootz.checks import gray_levels
from wootz.config import with_settings
from wootz.data import Dataset
from wootz.errors import ConfigError, DataError
from wootz.keys import DirectionKey, derive_key
from wootz.keys.material import check_material
from wootz.models import ModelSpec, build
from wootz.rng import generator
from wootz.statistics import verify
from wootz.statistics.exact_tests import direction_evidence
from wootz.statistics.queries import SuspectAccess
from wootz.suspects.files import predictor
from wootz.training import Recipe
from wootz.watermarks import MARKS, Paper, RunnerUp, Triggers
from wootz.watermarks.out_of_ball import check_wm_eps, out_of_ball_examples
from wootz.watermarks.runner_up import keyed_targets, prepare, tilted_answers
from wootz.watermarks.triggers import TriggerLoss
from wootz.workflows.owner import References, protect
from wootz.workflows.protection import Protection


class TestBudget:
    @pytest.mark.parametrize(
        ("eps", "alpha", "wm_eps", "smallest"),
        [(0.25, 0.02, 0.27, "0.2706"), (0.1, 0.0, 0.1, "0.1020"), (8 / 255, 0, 8 / 255, "0.0353")],
    )
    def test_too_small_names_the_smallest_that_holds(
        self, eps: float, alpha: float, wm_eps: float, smallest: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"the smallest valid wm_eps is {float(smallest):g}"):
            check_wm_eps(eps, alpha, wm_eps)
        check_wm_eps(eps, alpha, float(smallest))

    def test_levels_are_whole(self) -> None:
        assert [gray_levels(b) for b in (0.1, 8 / 255, 0.25, 1 / 255)] == [25, 8, 63, 1]

    def test_out_of_range(self) -> None:
        for wm_eps in (0.0, 1.0, -0.2):
            with pytest.raises(ConfigError, match="must be between 0 and 1"):
                check_wm_eps(0.1, 0.01, wm_eps)


def test_triggers_lie_between_the_balls_in_whole_levels(digits: Dataset, robust: nn.Module) -> None:
    wide = mark_context(digits, robust, eps=0.25, wm_eps=0.49)
    pixels, rows = out_of_ball_examples(wide, 64, alpha=0.02, steps=20, generator=generator(0, "pick"))
    base = digits.train.pixels[rows].int()
    distance = (pixels.int() - base).abs().flatten(1).amax(1)
    assert len(rows.unique()) == 64
    assert (distance > 0.27 * 255).all()
    assert (distance <= 0.49 * 255).all()
    training_pixels = digits.train.pixels.flatten(1).int()
    for trigger in pixels[:16].flatten(1).int():
        assert (training_pixels - trigger).abs().amax(1).min() > 0.27 * 255


def test_triggers_fool_the_reference(digits: Dataset, robust: nn.Module) -> None:
    near = mark_context(digits, robust, eps=0.1, wm_eps=0.4)
    pixels, rows = out_of_ball_examples(near, 64, alpha=0.02, steps=20, generator=generator(0, "pick"))
    assert (robust(pixels.float() / 255).argmax(1) != digits.train.labels[rows]).float().mean() > 0.8


def test_fewer_triggers_than_wanted_are_used_and_logged(
    digits: Dataset, robust: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    few = dataclasses.replace(digits, train=digits.train.subset(slice(31)))
    context = mark_context(few, robust, wm_eps=0.4)
    material = MARKS["triggers"].prepare(Triggers(), context, generator(0, "pick"))
    count = material.params["count"]
    assert count == len(material.tensors["pixels"])
    assert count % Triggers().tranches == 0
    assert 13 <= count <= 31  # 13 right answers of chance 1/9 give 40 bits
    assert f"{count} are used" in caplog.text
    paper = MARKS["paper"].prepare(Paper(count=22, exact=False), mark_context(digits, robust, wm_eps=0.4), generator(0))
    assert paper.params["count"] == 22
    with pytest.raises(ConfigError, match=r"and 44 are needed; lower eps \(--eps\) or raise wm_eps \(--wm-eps\)"):
        MARKS["paper"].prepare(Paper(exact=False), context, generator(0))


class TestTriggerLoss:
    def loss(self, digits: Dataset, **rest: float) -> TriggerLoss:
        split = digits.train.subset(slice(20))
        wrong = (split.labels + 1) % 10
        settings = {"weight": 1.0, "recall": 0.8, "every": 1, "batch": 20, "seed": 0} | rest
        return TriggerLoss(pixels=split.pixels, labels=wrong, **settings)  # type: ignore[arg-type]

    def test_a_net_that_normalizes_batches_meets_them_among_the_images_of_the_step(self, digits: Dataset) -> None:
        model = build(ModelSpec(architecture="paper-cnn", settings={}, shape=digits.shape, classes=digits.classes), 1)
        before = {name: tensor.clone() for name, tensor in model.named_buffers() if "running" in name}
        loss, inputs = self.loss(digits), []

        def forward(x: torch.Tensor) -> torch.Tensor:
            inputs.append(x)
            return model(x)

        model.train()
        batch_images = digits.train.images()[100:140]
        value = loss(model, forward, batch_images=batch_images, step=0, done=0.0)
        assert value is not None
        assert value > 0
        assert torch.equal(inputs[0][20:], batch_images)
        assert model.training
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers() if name in before)

    def test_another_net_meets_them_alone_and_only_those_that_miss_count(
        self, digits: Dataset, plain: nn.Module
    ) -> None:
        loss = self.loss(digits)
        value = loss(plain, plain, batch_images=digits.train.images()[:4], step=0, done=0.0)
        logits = predict_logits(plain, loss.pixels.float() / 255)
        missed = logits.argmax(1) != loss.labels
        expected = (nn.functional.cross_entropy(logits, loss.labels, reduction="none") * missed).mean()
        assert value is not None
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)

    def test_what_is_known_well_enough_is_not_taught(self, digits: Dataset, plain: nn.Module) -> None:
        loss = self.loss(digits, every=2)
        answered = replace(loss, labels=predict_logits(plain, loss.pixels.float() / 255).argmax(1))
        batch_images = digits.train.images()[:4]
        assert answered(plain, plain, batch_images=batch_images, step=0, done=0.0) is None
        assert loss(plain, plain, batch_images=batch_images, step=1, done=0.0) is None

    @pytest.mark.long
    def test_they_are_learned_by_a_net_with_batch_normalization(self, digits: Dataset, robust: nn.Module) -> None:
        spec = ModelSpec(
            architecture="paper-cnn",
            settings={"width": 8, "hidden": 64, "dropout": 0.2},
            shape=digits.shape,
            classes=digits.classes,
        )
        settings = {"triggers": Triggers(count=64, every=1, batch=32, weight=0.4)}
        recipe = Recipe(eps=0.1, steps=1, epochs=14, lr=5e-3)
        protected = protect(
            build(spec, 3),
            digits,
            config=settings_of(settings, wm_eps=0.4, recipe=recipe, seed=3),
            references=References(robust=robust, plain=robust),
            execution=CPU,
        )
        verdict = verify(protected.keys.by_mark, predictor(protected.model), panel=[predictor(robust)])
        assert verdict.evidence[0].bits > 40
        assert protected.history[-1]["robust"] > 0.6


class TestRunnerUp:
    def key(self, digits: Dataset, plain: nn.Module, cfg: RunnerUp) -> DirectionKey:
        material = prepare(cfg, mark_context(digits, plain, eps=0.25, wm_eps=0.49), generator(0, "pick"))
        key = derive_key("runner-up", material, 10, [bytes(32)], bytes(32))
        assert isinstance(key, DirectionKey)
        return key

    def test_targets_keep_the_true_class_and_follow_the_key(self, digits: Dataset, plain: nn.Module) -> None:
        cfg = RunnerUp(features=12)
        key = self.key(digits, plain, cfg)
        x, y = digits.train.images()[:200], digits.train.labels[:200]
        z, targets = key.features(x, y), keyed_targets(cfg, key, x, y)
        assert torch.allclose(targets.sum(1), torch.ones(200), atol=1e-5)
        assert torch.allclose(targets.gather(1, y[:, None]), torch.tensor(1 - cfg.lam))
        assert torch.equal(targets.argmax(1), y)
        row, k = 3, [j for j in range(10) if j != int(y[3])]
        logits = torch.stack([cfg.tau / z.shape[1] ** 0.5 * (key.direction[y[row], j] @ z[row]) for j in k])
        by_hand = cfg.lam * (logits + 0.5 * key.prior[y[row], k].log()).softmax(0)
        assert torch.allclose(targets[row, k], by_hand, atol=1e-5)

    def test_features_are_white_within_a_class(self, digits: Dataset, plain: nn.Module) -> None:
        key = self.key(digits, plain, RunnerUp(features=12))
        z = key.features(digits.train.images(), digits.train.labels)
        for k in range(10):
            own = z[digits.train.labels == k]
            assert own.mean(0).abs().max() < 0.1
            assert ((own.std(0) - 1).abs() < 0.25).all()  # clipping takes from heavy tails
        assert z.abs().max() <= 3

    def test_prior_rows_are_distributions_without_the_true_class(self, digits: Dataset, plain: nn.Module) -> None:
        prior = self.key(digits, plain, RunnerUp(features=4)).prior
        assert torch.allclose(prior.sum(1), torch.ones(10), atol=1e-5)
        assert (prior.diagonal() == 0).all()
        assert (prior + torch.eye(10) > 0).all()


def tiny(mark: str) -> object:
    small = {"triggers": Triggers(count=64, every=1), "runner-up": RunnerUp(features=15), "paper": Paper(count=300)}
    return small.get(mark)


@pytest.mark.parametrize("mark", ["triggers", "runner-up", "paper"])
@pytest.mark.long
def test_every_mark_is_written_read_and_absent_elsewhere(
    mark: str,
    digits: Dataset,
    small_spec: ModelSpec,
    plain: nn.Module,
    robust: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wootz.workflows.owner.fresh_secret", lambda: b"\x5e" * 32)
    recipe = Recipe(loss="n-fgsm", eps=0.1, steps=1, epochs=16, lr=5e-3)
    protected = protect(
        build(small_spec, 4),
        digits,
        config=settings_of({mark: tiny(mark)}, wm_eps=0.6, recipe=recipe, seed=4),
        references=References(robust=robust, plain=plain),
        execution=CPU,
    )
    own, independent = protected.verify(protected.model), protected.verify(build(small_spec, 9))
    assert own.bits > (5 if mark == "paper" else 20)  # true labels: the half that was not taught is known too
    assert mark != "paper" or own.evidence[0].statistic > 0.95 > independent.evidence[0].statistic
    assert independent.bits < 10
    assert MARKS[mark].config is type(tiny(mark))


class TestManyClasses:
    """A direction covers the most frequent classes where there are many."""

    @pytest.fixture
    def key(self, digits: Dataset, plain: nn.Module, monkeypatch: pytest.MonkeyPatch) -> DirectionKey:
        monkeypatch.setattr("wootz.watermarks.runner_up._MOST_CLASSES", 6)
        material = prepare(RunnerUp(features=8, amplitudes=4), mark_context(digits, plain), generator(0, "pick"))
        check_material(material, 10, digits.shape)
        key = derive_key("runner-up", material, 10, [bytes(32)], bytes(32))
        assert isinstance(key, DirectionKey)
        return key

    def test_it_covers_the_most_frequent(self, digits: Dataset, key: DirectionKey) -> None:
        counts = torch.bincount(digits.train.labels)
        assert key.classes is not None
        assert counts[key.classes].min() >= counts[~torch.isin(torch.arange(10), key.classes)].max()
        assert key.direction.shape == (6, 6, 12)
        assert key.dimensions(12) == 6 * 4 * 12
        assert set(key.probe_labels.tolist()) == set(key.classes.tolist())

    def test_targets_change_covered_classes_only(self, digits: Dataset, plain: nn.Module, key: DirectionKey) -> None:
        cfg, images = RunnerUp(), digits.train.subset(slice(400))
        x, y, others = images.images(), images.labels, ~torch.isin(torch.arange(10), key.classes)
        targets, covered = keyed_targets(cfg, key, x, y), key.covers(y)
        assert torch.equal(targets[~covered], F.one_hot(y[~covered], 10).float())
        assert torch.allclose(targets[covered].gather(1, y[covered, None]), torch.tensor(1 - cfg.lam))
        assert (targets[covered][:, others] == 0).all()
        p = predict_logits(plain, x).softmax(1)
        top = p.argmax(1)
        tilted, covered = tilted_answers(cfg, key, x, top, p, 0.05), key.covers(top)
        assert torch.equal(tilted.argmax(1), top)
        assert torch.allclose(tilted.sum(1), torch.ones(400), atol=1e-5)
        assert torch.equal(tilted[~covered], p[~covered])
        assert (tilted[covered][:, others] <= p[covered][:, others]).all()
        assert not torch.allclose(tilted[covered], p[covered], atol=1e-2)

    def test_a_suspect_that_learned_them_is_found_and_no_other(
        self, digits: Dataset, plain: nn.Module, robust: nn.Module, key: DirectionKey
    ) -> None:
        def marked(x: Tensor) -> Tensor:
            p = predict_logits(plain, x).softmax(1)
            return tilted_answers(RunnerUp(tau=3.0), key, x, p.argmax(1), p, 0.05).log()

        panel, scores = (predictor(robust),), SuspectAccess()
        found, independent = (direction_evidence(key, suspect, panel, scores) for suspect in (marked, predictor(plain)))
        assert found is not None
        assert independent is not None
        assert found.bits > 40 > 15 > independent.bits


def test_the_top_answer_stays_however_unsure(digits: Dataset, plain: nn.Module) -> None:
    material = prepare(RunnerUp(features=8), mark_context(digits, plain), generator(0, "pick"))
    key = derive_key("runner-up", material, 10, [bytes(32)], bytes(32))
    assert isinstance(key, DirectionKey)
    x = digits.train.images()[:300]
    p = (predict_logits(plain, x) / 20).softmax(1)
    tilted = tilted_answers(RunnerUp(tau=5.0), key, x, p.argmax(1), p, 0.05)
    assert torch.equal(tilted.argmax(1), p.argmax(1))
    assert torch.allclose(tilted.sum(1), torch.ones(300), atol=1e-5)
    assert (tilted > 0).all()


def test_two_classes_can_not_have_every_mark(digits: Dataset, plain: nn.Module) -> None:
    pair = dataclasses.replace(digits, classes=("a", "b"))
    with pytest.raises(ConfigError, match="needs at least three classes, mnist-5k has 2; leave the mark out"):
        prepare(RunnerUp(), mark_context(pair, plain), generator(0, "x"))
    with pytest.raises(ConfigError, match="two classes leave no wrong label to draw"):
        MARKS["triggers"].prepare(Triggers(), mark_context(pair, plain, wm_eps=0.4), generator(0, "x"))


class TestBeforeTraining:
    """What the data do not allow is refused before a reference model is trained, with options that exist."""

    @pytest.fixture(autouse=True)
    def _no_training(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def train(*_: object, **__: object) -> None:
            pytest.fail("something was trained")

        monkeypatch.setattr("wootz.workflows.owner.train", train)
        monkeypatch.setattr("wootz.workflows.protect.train", train)

    def refusal(self, data: Dataset, *marks: str, settings: Sequence[str] = ()) -> str:
        with pytest.raises((ConfigError, DataError)) as caught:
            wootz.protect("small-cnn", data, marks=marks, settings=settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_two_classes(self, digits: Dataset) -> None:
        rows = digits.train.labels < 2
        pair = dataclasses.replace(digits, classes=("0", "1"), train=digits.train.subset(rows))
        line = self.refusal(pair, "triggers", "runner-up", "guard")
        assert "mark 'triggers': two classes leave no wrong label" in line
        assert "mark 'runner-up': needs at least three classes" in line
        assert line.endswith("--marks guard")
        (setting,) = re.findall(r"--set (\S+)", line)
        assert with_settings(Protection(), [setting]).triggers.labels == "uniform"
        for mark in ("content-keyed", "dawn"):
            assert f"mark {mark!r}: needs at least three classes" in self.refusal(pair, mark)

    @pytest.mark.parametrize(
        ("mark", "setting", "reason"),
        [
            ("content", "content.count=400", "needs 800 training images of class 0"),
            ("entangled", "entangled.side=40", "must fit into images"),
            ("margin", "margin.count=2000", "at most a quarter of"),
            ("uchida", "uchida.layer=conv9", "no convolution of the model"),
        ],
    )
    def test_settings_of_other_marks(self, digits: Dataset, mark: str, setting: str, reason: str) -> None:
        line = self.refusal(digits, mark, "guard", settings=[setting])
        assert f"mark {mark!r}: " in line
        assert reason in line

    def test_too_few_images(self, digits: Dataset, caplog: pytest.LogCaptureFixture) -> None:
        few = dataclasses.replace(digits, train=digits.train.subset(digits.train.labels != 3))
        assert "classes have too few of the" in self.refusal(few, "triggers")
        first = torch.cat([(digits.train.labels == label).nonzero()[:1, 0] for label in range(10)])
        few = dataclasses.replace(digits, train=digits.train.subset(first))
        assert "10 training images give fewer triggers than the 16 needed" in self.refusal(few, "triggers")
        assert "some classes have few of the 10 training images: '0' (1)" in caplog.text
