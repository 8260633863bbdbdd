"""A message in the weights: written, read, lost with their order, absent elsewhere, exact whatever is read."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from helpers import CPU, context, mark_context
from wootz.attacks.extraction import BudgetedOracle
from wootz.attacks.extraction.retrain import Retrain, retrain
from wootz.attacks.removal.channels import Permute, permute
from wootz.attacks.removal.finetune import LayerFinetune, finetune_layers
from wootz.attacks.removal.pruning import Prune, prune
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import (
    RegisteredMaterial,
    WeightKey,
    derive_key,
    draw_keys,
    read_keys,
    rederive_keys,
    reveal_marks,
    write_keys,
)
from wootz.keys.prf import gaussian, integers
from wootz.models import ModelSpec, build, with_filter, write_model
from wootz.models.filters.outputs import Round
from wootz.models.saved import to_onnx
from wootz.rng import generator
from wootz.statistics import verify
from wootz.statistics.evidence import Evidence
from wootz.statistics.exact_tests import read_bits, weight_evidence
from wootz.statistics.queries import SuspectAccess
from wootz.statistics.tails import binomial_tail
from wootz.suspects.files import open_file, predictor, weights_of
from wootz.training import Recipe, train
from wootz.watermarks import MARKS, Uchida
from wootz.workflows.run import agreement

BITS = 48


def material(cfg: Uchida, data: Dataset, model: nn.Module) -> RegisteredMaterial:
    return MARKS["uchida"].prepare(cfg, mark_context(data, model=model), generator(0, "pick"))


def key_of(public: RegisteredMaterial, secret: int = 0) -> WeightKey:
    key = derive_key("uchida", public, 10, [secret.to_bytes(32, "big")], b"D" * 32)
    assert isinstance(key, WeightKey)
    return key


def read(key: WeightKey, model: nn.Module) -> Evidence:
    found = weight_evidence(key, predictor(model), (), SuspectAccess("weights", weights=weights_of(model)))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def key(digits: Dataset, small_spec: ModelSpec) -> WeightKey:
    return key_of(material(Uchida(bits=BITS), digits, build(small_spec, 1)))


@pytest.fixture(scope="module")
def marked(digits: Dataset, small_spec: ModelSpec, key: WeightKey) -> nn.Module:
    hook = MARKS["uchida"].train_hook(Uchida(bits=BITS, weight=0.1), key, digits, seed=0)  # few steps: heavier
    recipe = Recipe(loss="natural", epochs=6, lr=5e-3)
    start = build(small_spec, 1)
    return train(recipe, start, digits.train, digits.validation, seed=1, hook=hook, execution=CPU).model


class TestWhere:
    def test_the_first_convolution_that_holds_the_message(self, digits: Dataset, small_spec: ModelSpec) -> None:
        net = build(small_spec, 1)
        params = {"weight": "2.weight", "shape": [16, 8, 4, 4], "bits": 64}
        assert material(Uchida(bits=64), digits, net) == RegisteredMaterial("weights", {}, params)
        assert material(Uchida(bits=15), digits, net).params["weight"] == "0.weight"
        assert material(Uchida(bits=15, layer="2"), digits, net).params["weight"] == "2.weight"

    def test_one_that_is_none_or_holds_too_little(self, digits: Dataset, small_spec: ModelSpec) -> None:
        net = build(small_spec, 1)
        with pytest.raises(ConfigError, match="the model's widest filters have 128 weights"):
            material(Uchida(bits=128), digits, net)
        with pytest.raises(ConfigError, match="the filters of '0' have 16 weights"):
            material(Uchida(bits=16, layer="0"), digits, net)
        with pytest.raises(ConfigError, match="layer = '1': is no convolution of the model; known: 0, 2"):
            material(Uchida(bits=16, layer="1"), digits, net)
        with pytest.raises(ConfigError, match="widest filters have 0 weights"):
            material(Uchida(bits=1), digits, nn.Linear(3, 3))


class TestFormula:
    def test_the_key_by_hand(self, key: WeightKey) -> None:
        purpose = b"key/uchida/" + b"D" * 32
        assert torch.equal(key.message, integers(bytes(32), purpose + b"/message", BITS, 2))
        assert torch.equal(key.directions, gaussian(bytes(32), purpose + b"/directions", (BITS, 128)).float())

    def test_projection_and_loss_by_hand(self, key: WeightKey, small_spec: ModelSpec, digits: Dataset) -> None:
        net = build(small_spec, 1)
        tensor = net.get_parameter("2.weight").detach()
        w = sum(tensor[n].flatten() for n in range(16)) / 16
        assert torch.allclose(key.projected(tensor), key.directions @ w, atol=1e-5)
        y = torch.sigmoid(key.directions @ w)
        entropy = -sum(float(torch.log(y[j] if key.message[j] else 1 - y[j])) for j in range(BITS))
        (loss,) = MARKS["uchida"].train_hook(Uchida(bits=BITS, weight=0.5), key, digits, seed=0).extra
        found = loss(net, net, batch_images=digits.train.images()[:4], step=0, done=0.0)  # type: ignore[arg-type]
        assert found is not None
        assert found.item() == pytest.approx(0.5 * entropy, rel=1e-4)

    def test_the_loss_is_not_rounded_by_half_precision(self, key: WeightKey, small_spec: ModelSpec) -> None:
        tensor = build(small_spec, 1).get_parameter("2.weight")
        with torch.autocast("cpu", torch.bfloat16):
            half = key.projected(tensor)
        assert torch.equal(half, key.projected(tensor))

    def test_a_key_shows_nothing_of_itself(self, key: WeightKey) -> None:
        assert "tensor" not in repr(key)


class TestRead:
    def test_whole_in_the_marked_model_and_absent_elsewhere(
        self, key: WeightKey, marked: nn.Module, plain: nn.Module, robust: nn.Module
    ) -> None:
        own = read(key, marked)
        assert own.details == {
            "weight": "2.weight",
            "trials": BITS,
            "readable": True,
            "hits": BITS,
            "bit_error_rate": 0.0,
        }
        assert own.log_p == binomial_tail(BITS, BITS, 0.5)
        assert own.queries == 0
        assert all(read(key, other).bits < 10 for other in (plain, robust))

    def test_after_fine_tuning_and_pruning(
        self, key: WeightKey, marked: nn.Module, digits: Dataset, small_spec: ModelSpec
    ) -> None:
        tuned = finetune_layers(LayerFinetune(epochs=2), marked, context(digits.thief, small_spec))
        pruned = prune(Prune(sparsity=0.5), marked, context(digits.thief, small_spec))
        for model in (tuned, pruned):
            found = read(key, model)
            assert found.details["bit_error_rate"] < 0.1
            assert found.bits > 30

    def test_not_after_a_shuffle_that_changes_no_answer(
        self, key: WeightKey, marked: nn.Module, digits: Dataset, small_spec: ModelSpec
    ) -> None:
        shuffled = permute(Permute(), marked, context(digits.thief, small_spec))
        assert agreement(shuffled, marked, digits) > 0.999
        assert read(key, shuffled).bits < 10

    def test_not_by_who_learned_the_answers(
        self, key: WeightKey, marked: nn.Module, digits: Dataset, small_spec: ModelSpec
    ) -> None:
        victim = BudgetedOracle(predictor(marked), access="scores", num_classes=10)
        stolen = retrain(Retrain(epochs=4), victim, context(digits.thief, small_spec))
        assert read(key, stolen).bits < 10

    def test_through_filters(self, key: WeightKey, marked: nn.Module, digits: Dataset) -> None:
        assert read(key, with_filter(marked, Round(digits=1), digits.shape, 10)) == read(key, marked)


@pytest.mark.parametrize("suspect", ["marked under other keys", "other network"])
def test_the_null_holds_over_many_keys(suspect: str, marked: nn.Module, key: WeightKey, small_spec: ModelSpec) -> None:
    tensor: Tensor = marked.state_dict()["2.weight"]
    if suspect == "other network":
        tensor = F.normalize(build(small_spec, 5).state_dict()["2.weight"], dim=1)
    public = RegisteredMaterial("weights", {}, {"weight": key.weight, "shape": list(key.shape), "bits": 16})
    hits, draws = torch.zeros(17), 3000
    for secret in range(1, draws + 1):
        other = key_of(public, secret)
        hits[int((read_bits(other, tensor) == other.message).sum())] += 1
    inner = slice(4, 13)
    expected = torch.tensor(stats.binom.pmf(range(17), 16, 0.5)) * draws
    seen = [float(hits[:4].sum()), *hits[inner].tolist(), float(hits[13:].sum())]
    wanted = [float(expected[:4].sum()), *expected[inner].tolist(), float(expected[13:].sum())]
    assert stats.chisquare(seen, wanted).pvalue > 1e-4


class TestVerdict:
    def test_all_marks_count_and_a_missing_layer_is_a_miss(
        self, key: WeightKey, digits: Dataset, small_spec: ModelSpec
    ) -> None:
        spec = ModelSpec(
            architecture="paper-cnn", settings={"width": 4, "hidden": 16}, shape=digits.shape, classes=digits.classes
        )
        wide = ModelSpec(
            architecture="small-cnn", settings={"width": 9, "hidden": 16}, shape=digits.shape, classes=digits.classes
        )
        for model in (build(spec, 0), build(wide, 0)):
            verdict = verify({"uchida": key}, predictor(model), access="weights", weights=weights_of(model))
            assert (verdict.outcome, verdict.bits) == ("NOT SHOWN", 0)
            assert verdict.evidence[0].details == {"weight": "2.weight", "trials": BITS, "readable": False}
            assert "the suspect has no 2.weight of the registered shape" in verdict.notes[0]

    def test_left_out_where_no_weights_are_shown(self, key: WeightKey, marked: nn.Module) -> None:
        with pytest.raises(ConfigError, match=r"none of the marks uchida can be tested with it .*access is scores"):
            verify({"uchida": key}, predictor(marked), weights=weights_of(marked))
        with pytest.raises(ConfigError, match="the suspect shows none"):
            verify({"uchida": key}, predictor(marked), access="weights")

    def test_key_dependent(self, key: WeightKey, marked: nn.Module, plain: nn.Module) -> None:
        panel = (predictor(plain),)
        verdict = verify({"uchida": key}, predictor(marked), panel=panel, access="weights", weights=weights_of(marked))
        assert (verdict.outcome, verdict.notes) == ("KEY-DEPENDENT", ())


class TestFiles:
    def test_an_isolated_process_shows_the_same_weights(
        self, key: WeightKey, marked: nn.Module, small_spec: ModelSpec, tmp_path: Path
    ) -> None:
        write_model(tmp_path, marked, small_spec, {})
        with open_file(tmp_path, "weights") as opened:
            assert opened.weights is not None
            shown = opened.weights(key.weight, key.shape)
            assert shown is not None
            assert torch.equal(shown, marked.state_dict()[key.weight])
            assert opened.weights("nowhere.weight", key.shape) is None
            assert opened.weights(key.weight, (1, 2, 3, 4)) is None
            x = torch.rand(3, *small_spec.shape)
            assert torch.allclose(opened.predict(x), predictor(marked)(x), atol=1e-5)  # still in step

    def test_none_where_they_are_not_asked_for_and_none_of_onnx(
        self, marked: nn.Module, small_spec: ModelSpec, tmp_path: Path
    ) -> None:
        write_model(tmp_path, marked, small_spec, {})
        with open_file(tmp_path, "scores", isolated=False) as opened:
            assert opened.weights is None
        (tmp_path / "m.onnx").write_bytes(to_onnx(copy.deepcopy(marked), small_spec))
        with open_file(tmp_path / "m.onnx", "weights", isolated=False) as opened:
            assert opened.weights is None
            assert opened.predict(torch.rand(2, *small_spec.shape)).shape == (2, 10)


def test_the_key_folder_and_a_claim_s_opening_give_the_same_key(
    digits: Dataset, small_spec: ModelSpec, tmp_path: Path
) -> None:
    public = material(Uchida(bits=20), digits, build(small_spec, 1))
    owner_keys = draw_keys(bytes(32), {"uchida": public}, classes=digits.classes, shape=digits.shape, panel=[])
    write_keys(tmp_path, owner_keys)
    opening, tensors = reveal_marks(owner_keys, 0)
    assert tensors == {}
    for again in (read_keys(tmp_path).by_mark, rederive_keys(owner_keys.registration, b"", opening, tensors)):
        (one, two) = (again["uchida"], owner_keys.by_mark["uchida"])
        assert isinstance(one, WeightKey)
        assert isinstance(two, WeightKey)
        assert torch.equal(one.message, two.message)
        assert torch.equal(one.directions, two.directions)
        assert (one.weight, one.shape) == (two.weight, two.shape)
