from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench_grids import TINY
from wootz.bench import Grid, plan_grid, read_grid
from wootz.bench.grid import Axes, IndependentModels, MarkSet, Theft, Variant
from wootz.errors import ConfigError
from wootz.records import AXES


def sized(name: str, data_dir: Path | None) -> SimpleNamespace:
    """Return a stand-in for a data set of the usual size."""
    return SimpleNamespace(train=range(30_000))


def kinds(grid: Grid) -> Counter[str]:
    return Counter(job.kind for job in plan_grid(grid).models.values())


class TestReading:
    def test_results_name_every_axis_but_the_seed(self) -> None:
        assert [axis.name for axis in fields(Axes)] == [*AXES, "seed"]

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("seed = [3]", "sed = [3]", r"axes\.sed: no such setting of Axes; did you mean 'seed'"),
            ("seed = [3]", 'seed = ["three"]', r"axes\.seed = 'three': must be a whole number"),
            ("seed = [3]", "seed = []", r"axes\.seed: is empty"),
            ("seed = [3]", "seed = 3", r"axes\.seed = 3: must be a list"),
            ('attack = "quantize"', 'atack = "quantize"', r"theft\.8-bit\.atack: no such setting of Theft"),
            ("images = 20", "images = 0", r"images = 0: must be at least 1"),
            ('name = "tiny"', 'name = "tiny', r"tiny\.toml: "),
            ("count = 1", "count = 0", r"count = 0: must be at least 1"),
        ],
    )
    def test_a_mistake_is_one_line_that_names_its_place(self, old: str, new: str, message: str, tmp_path: Path) -> None:
        path = tmp_path / "tiny.toml"
        path.write_text(TINY.replace(old, new, 1))
        with pytest.raises(ConfigError, match=message):
            read_grid(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"data": ("mnist-5kk",)}, "unknown data set .* 'mnist-5kk': did you mean 'mnist-5k'"),
            ({"model": ("small",)}, "unknown model 'small'"),
            ({"loss": ("pgd",)}, "unknown loss 'pgd': did you mean 'pgd-at'"),
            ({"mark": ("ordre",)}, "unknown mark 'ordre': did you mean 'order'"),
            ({"theft": ("prun",)}, "unknown theft 'prun': did you mean 'prune'"),
        ],
    )
    def test_an_unknown_name_is_told_with_the_nearest(
        self, change: dict[str, tuple[str, ...]], message: str, smaller: Callable[..., Grid]
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            plan_grid(smaller(**change))

    def test_settings_are_checked_before_anything_is_made(self, tiny: Grid) -> None:
        with pytest.raises(ConfigError, match=r"settings\.recipe\.epoch: no such setting of Recipe"):
            plan_grid(replace(tiny, settings={"recipe": {"epoch": 3}}))
        with pytest.raises(ConfigError, match=r"theft\.t\.settings\.sparsity = 'much': must be a number"):
            plan_grid(
                replace(
                    tiny,
                    axes=replace(tiny.axes, theft=("t",)),
                    theft={"t": Theft(attack="prune", settings={"sparsity": "much"})},
                )
            )


class TestPlan:
    def test_cells_stand_in_the_order_of_the_axes(self, tiny: Grid) -> None:
        cells = plan_grid(tiny).cells
        assert [(p.axes["mark"], p.suspect) for p in cells] == [
            ("none", "owner"),
            ("none", "prune"),
            ("none", "8-bit"),
            ("none", "refused"),
            ("order", "owner"),
            ("order", "independent-1"),
            ("order", "prune"),
            ("order", "8-bit"),
            ("order", "refused"),
        ]
        assert [p.kind for p in cells[4:7]] == ["protected", "independent", "removed"]
        assert {p.job.config["owner"] is None for p in cells[:4]} == {True}

    def test_models_are_shared(self, tiny: Grid, smaller: Callable[..., Grid]) -> None:
        assert kinds(tiny) == {"panel": 1, "train": 3, "attack": 6}
        twice = smaller(mark=("order", "ood"), theft=("none", "independent"))
        assert kinds(twice) == {"panel": 1, "train": 3}  # two owners, one control, one panel
        assert kinds(smaller(theft=("none",), mark=("none",))) == {"train": 1}
        less = replace(twice, mark={**twice.mark, "ood": MarkSet(marks=("ood",), settings={"set_aside": 0.5})})
        assert kinds(less) == {"panel": 2, "train": 3}  # an owner of other training images has a panel of its own
        assert kinds(smaller(access=("scores", "label"))) == kinds(tiny)

    def test_walks_are_for_labels_alone(self, smaller: Callable[..., Grid]) -> None:
        grid = smaller(access=("scores", "label"), theft=("none",), mark=("order",))
        walking = replace(grid, measure=replace(grid.measure, walks=50))
        (scores, label), (same, walked) = ([p.job for p in plan_grid(g).cells] for g in (grid, walking))
        assert same == scores
        assert walked != label
        assert walked.config == label.config | {"walks": 50}

    def test_a_name_is_no_part_of_the_digest(self, tiny: Grid) -> None:
        renamed = replace(
            tiny,
            axes=replace(
                tiny.axes, mark=("none", "renamed"), theft=("none", "independent", "prune", "eight", "refused")
            ),
            mark={"renamed": tiny.mark["order"]},
            theft={"eight": tiny.theft["8-bit"], "refused": tiny.theft["refused"]},
        )
        assert [p.job.digest for p in plan_grid(renamed).cells] == [p.job.digest for p in plan_grid(tiny).cells]

    def test_whatever_decides_the_result_is(self, tiny: Grid) -> None:
        def digests(grid: Grid) -> set[str]:
            return {cell.job.digest for cell in plan_grid(grid).cells}

        for other in (
            replace(tiny, settings=tiny.settings | {"recipe": {"epochs": 3}}),
            replace(tiny, axes=replace(tiny.axes, seed=(4,))),
            replace(tiny, measure=replace(tiny.measure, images=21)),
            replace(tiny, data={"mnist-5k": Variant(settings={"recipe": {"eps": "30/255"}})}),
        ):
            assert not digests(other) & digests(tiny)

    def test_equal_cells_stand_once(self, tiny: Grid) -> None:
        blocks = replace(tiny, block=({"seed": [3]}, {"seed": [3, 4]}, {"mark": ["none"]}))
        seeds = [(p.axes["mark"], p.seed) for p in plan_grid(blocks).cells]
        assert len(seeds) == 18
        assert seeds.index(("none", 4)) == 9

    def test_a_block_replaces_axes(self, tiny: Grid) -> None:
        with pytest.raises(ConfigError, match=r"block 1\.sed: no such setting"):
            plan_grid(replace(tiny, block=({"sed": [3]},)))
        cells = plan_grid(replace(tiny, block=({"theft": ["none"], "loss": ["natural"]},))).cells
        assert [(p.axes["loss"], p.axes["theft"]) for p in cells] == [("natural", "none")] * 2

    def test_later_settings_win_and_eps_brings_its_wm_eps(self, tiny: Grid) -> None:
        grid = replace(
            tiny,
            axes=replace(tiny.axes, theft=("none",), mark=("m",), loss=("l",)),
            data={"mnist-5k": Variant(settings={"recipe": {"eps": "0.1"}})},
            loss={"l": Variant(base="natural", settings={"recipe": {"epochs": 5}})},
            mark={
                "m": MarkSet(
                    marks=("triggers",),
                    settings={"recipe": {"epochs": 7}, "triggers": {"count": 64}},
                    by_data={"mnist-5k": {"triggers": {"count": 32}}, "mnist": {"triggers": {"count": 16}}},
                )
            },
        )
        (job,) = [job for job in plan_grid(grid).models.values() if job.kind == "train"]
        cfg = job.config["protection"]
        assert (cfg["recipe"]["eps"], cfg["wm_eps"], cfg["recipe"]["loss"], cfg["recipe"]["epochs"]) == (
            0.1,
            0.28,
            "natural",
            7,
        )
        assert cfg["triggers"]["count"] == 32

    def test_nets_and_losses_are_the_presets_unless_named(
        self, smaller: Callable[..., Grid], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wootz.bench.plan.load", sized)
        strong = replace(smaller(data=("mnist", "fashion-mnist"), model=("preset",), loss=("preset",)), preset="strong")
        axes = {(p.axes["data"], p.axes["model"], p.axes["loss"]) for p in plan_grid(strong).cells}
        assert axes == {("mnist", "cw-cnn", "trades"), ("fashion-mnist", "small-cnn", "trades")}
        named = replace(strong, axes=replace(strong.axes, model=("small-cnn",), loss=("pgd-at",)))
        assert {(p.axes["model"], p.axes["loss"]) for p in plan_grid(named).cells} == {("small-cnn", "pgd-at")}
        wider = Variant(base="preset", settings={"small_cnn": {"width": 48}})
        grid = replace(smaller(data=("fashion-mnist",), model=("wider",)), preset="strong", model={"wider": wider})
        trainings = [job.config["protection"] for job in plan_grid(grid).models.values() if job.kind == "train"]
        assert {cfg["small_cnn"]["width"] for cfg in trainings} == {48, 4}  # 4 for controls, by the grid's settings

    def test_controls_alone_are_no_grid(self, smaller: Callable[..., Grid]) -> None:
        with pytest.raises(ConfigError, match="holds no cell"):
            plan_grid(smaller(mark=("none",), theft=("independent",)))

    def test_controls_have_a_seed_each(self, tiny: Grid) -> None:
        grid = replace(
            tiny, independent=(IndependentModels(count=2, seed=50), IndependentModels(count=1, loss="natural", seed=50))
        )
        trained = [j.config["protection"] for j in plan_grid(grid).models.values() if j.kind == "train"]
        assert sorted(p["seed"] for p in trained if p["seed"] >= 50) == [51, 52, 53]


CELLS = {"smoke": 48, "paper": 852, "paper-cpu": 110, "cost": 48, "cost-cpu": 36, "strong": 2, "matrix": 490}
GRIDS = sorted((Path(__file__).parents[2] / "grids").glob("*.toml"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_grids_that_come_with_wootz_can_be_laid_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wootz.bench.plan.load", sized)
    plan = plan_grid(read_grid(path))
    assert len(plan.cells) == CELLS[path.stem]
    owners = {cell.job.config["owner"] for cell in plan.cells} - {None}
    assert all(plan.models[digest].config["protection"]["marks"] for digest in owners)
