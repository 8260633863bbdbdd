"""The table of all marks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wootz.watermarks import guard, runner_up, triggers
from wootz.watermarks.baselines import (
    app,
    blackmarks,
    entangled,
    frontier,
    keyed_content,
    margin,
    out_of_distribution,
    paper,
    uchida,
    within_class,
)
from wootz.watermarks.interface import Mark

MARKS: Mapping[str, Mark] = MappingProxyType(
    {
        "triggers": Mark(triggers.prepare, triggers.train_hook, triggers.Triggers),
        "runner-up": Mark(runner_up.prepare, runner_up.train_hook, runner_up.RunnerUp),
        "guard": Mark(guard.prepare_guard, guard.train_hook, guard.Guard),
        "paper": Mark(paper.prepare, paper.train_hook, paper.Paper),
        "ood": Mark(
            out_of_distribution.prepare_ood, out_of_distribution.train_hook_ood, out_of_distribution.OutOfDistribution
        ),
        "content": Mark(within_class.prepare_content, within_class.train_hook, within_class.Content),
        "noise": Mark(within_class.prepare_noise, within_class.train_hook, within_class.Noise),
        "unrelated": Mark(
            out_of_distribution.prepare_unrelated,
            out_of_distribution.train_hook_unrelated,
            out_of_distribution.Unrelated,
        ),
        "content-keyed": Mark(keyed_content.prepare, keyed_content.train_hook, keyed_content.KeyedContent),
        "frontier": Mark(frontier.prepare, frontier.train_hook, frontier.Frontier),
        "entangled": Mark(entangled.prepare, entangled.train_hook, entangled.Entangled),
        "margin": Mark(margin.prepare, margin.train_hook, margin.Margin),
        "blackmarks": Mark(blackmarks.prepare, blackmarks.train_hook, blackmarks.Blackmarks),
        "app": Mark(app.prepare, app.train_hook, app.App),
        "dawn": Mark(guard.prepare_dawn, guard.train_hook, guard.Dawn),
        "uchida": Mark(uchida.prepare, uchida.train_hook, uchida.Uchida),
    }
)
