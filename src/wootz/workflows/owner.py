"""The owner of a protected model: model, secret keys and reference models, in memory or in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from torch import nn

from wootz.config import differences, from_mapping, read_toml, to_mapping, to_toml
from wootz.data import Dataset, check_balance
from wootz.errors import ConfigError
from wootz.keys import (
    BoundarySearchTerms,
    OwnerKeys,
    draw_keys,
    fresh_secret,
    has_keys,
    owner_secret,
    public_hex,
    read_keys,
    run_secret,
    signing_key,
    write_keys,
)
from wootz.logs import warn_once
from wootz.models import (
    MODULE,
    ModelSpec,
    Wrapper,
    build,
    check_model,
    describe_module,
    load_weights,
    read_model,
    read_spec,
    write_model,
)
from wootz.rng import derive
from wootz.statistics import Verdict
from wootz.store import lock_folder, read_tensors, write_bytes
from wootz.training import Execution, Marking, Recipe, check_shift, train
from wootz.types import THRESHOLD_BITS, Access, Progress
from wootz.watermarks import MarkContext, Triggers, check_marks, hook_of, prepare_all, weights_digest
from wootz.workflows.inputs import DataLike, as_dataset
from wootz.workflows.mark_loss import MarkLoss
from wootz.workflows.protection import REFERENCE_NETWORK, Protection, change, preset, quick_triggers
from wootz.workflows.reference_models import ReferenceModels, registered_panel
from wootz.workflows.run import DATA_FIELDS, check_same_data, data_metadata, prepare_run_folder
from wootz.workflows.suspects import QueryConfig, SuspectLike
from wootz.workflows.timestamp import fetch_token

if TYPE_CHECKING:
    from wootz.workflows.claim import Claim

Tsa: TypeAlias = str | Callable[[bytes], bytes] | None
"""URL of an RFC 3161 authority, or a function from a digest to the authority's response; None asks for no token."""

_LISTED = 5
_REFERENCE_SIZE = 32


class References(NamedTuple):
    """Independent models, trained without the key, that the tests calibrate on.

    Attributes:
        robust: adversarially trained; trigger images are made on it.
        plain: trained without attacks.
    """

    robust: nn.Module
    plain: nn.Module


@dataclass(kw_only=True, eq=False)
class Owner:
    """A protected model with its keys. `wootz.protect` makes one, `Owner.load` opens a run folder.

    Attributes:
        keys: the secret keys, with the registration that they were drawn after.
        references: the reference models; None in a run whose registration names none.
        config: what was trained, how, and with which marks.
        about: metadata of the run: data, eps, seed.
        folder: the run folder; None while the owner is in memory only.
        history: figures per epoch of training.
    """

    keys: OwnerKeys = field(repr=False)
    references: References | None = field(repr=False)
    config: Protection = field(repr=False)
    about: dict[str, Any]
    folder: Path | None = None
    history: list[dict[str, float]] = field(default_factory=list, repr=False)
    _model: nn.Module | None = field(default=None, repr=False)
    _data: Dataset | None = field(default=None, repr=False)
    _loop: MarkLoss | None = field(default=None, repr=False)

    @classmethod
    def prepare(
        cls,
        model: nn.Module | str,
        data: DataLike,
        *,
        eps: float | None = None,
        wm_eps: float | None = None,
        marks: Sequence[str] | None = None,
        references: References | None = None,
        settings: Sequence[str] | Mapping[str, Any] = (),
        config: Protection | None = None,
        seed: int = 0,
        execution: Execution | None = None,
        data_dir: Path | None = None,
        tsa: Tsa = None,
        progress: Progress = lambda *_: None,
    ) -> Owner:
        """Make the reference models and draw the keys, for a training loop of your own; see `train_hook`.

        The arguments are those of `protect`. The owner's model is `model` itself, which your loop trains. Triggers are
        few and embedded at every step, unless settings say otherwise.
        """
        dataset, cfg, network, secret = resolve_run(
            model, data, eps, wm_eps, marks, settings, config, seed, data_dir, triggers=quick_triggers
        )
        return prepare_owner(
            network,
            dataset,
            cfg,
            secret,
            references=references,
            folder=None,
            execution=execution or Execution(),
            tsa=tsa,
            tsa_policy="",
            progress=progress,
        )

    @classmethod
    def load(cls, folder: str | Path, model: nn.Module | None = None) -> Owner:
        """Open a run folder with a key.

        Args:
            folder: as `save` or `wootz protect` wrote it.
            model: the network, where it was defined outside wootz; its weights are read from the folder.

        Raises:
            KeyFolderError: the folder holds no key, or one that does not fit its registration.
            StoreError: files are missing or damaged.
            ModelError: the weights do not fit `model`.
        """
        folder = Path(folder)
        keys = read_keys(folder)
        references = None
        if keys.registration["panel"]:
            references = References(*(read_model(folder / "panel" / name)[0] for name in References._fields))
        about = read_spec(folder / "model.json")[1] if (folder / "model.json").is_file() else {}
        if model is not None:
            load_weights(model, read_tensors(folder / "model.safetensors"), folder / "model.safetensors")
            model.eval()
        known = (*DATA_FIELDS, "eps", "seed", "kind")
        return cls(
            keys=keys,
            references=references,
            config=read_config(folder) if (folder / "config.toml").is_file() else Protection(),
            about={name: about[name] for name in known if name in about},
            folder=folder,
            _model=model,
        )

    @property
    def model(self) -> nn.Module:
        """The protected model; read from the run folder at first use."""
        if self._model is None:
            assert self.folder is not None
            self._model = read_model(self.folder)[0]
        return self._model

    @cached_property
    def reference_models(self) -> ReferenceModels:
        """The reference models as the tests query them, checked against the registration."""
        return registered_panel(self.references or (), self.keys.registration, self.folder or Path("owner"))

    def save(self, folder: str | Path) -> None:
        """Write a run folder that every `wootz` command takes, and go on with it.

        After a training loop of your own, a warning says so where the marks give fewer bits than `train_hook` wanted.

        Raises:
            ConfigError: the folder holds a model already.
        """
        folder = Path(folder)
        with lock_folder(folder):
            prepare_run_folder(folder)
            write_bytes(folder / "config.toml", to_toml(self.config))
            self._write_references(folder)
            write_keys(folder, self.keys)
            self._write_model(folder)
        self.folder = folder
        if self._loop is not None:
            self._loop.warn_if_weak(self.model)

    def verify(
        self,
        suspect: SuspectLike,
        access: Access = "scores",
        *,
        query: QueryConfig | None = None,
        threshold_bits: float = THRESHOLD_BITS,
        guard_log: Path | None = None,
        progress: Progress = lambda *_: None,
    ) -> Verdict:
        """Test a suspect with every key.

        Args:
            suspect: a module or callable (images float32 [N, C, H, W] in [0, 1] -> scores [N, K] or labels [N]), the
                path of a run folder, a safetensors or an ONNX file, or the URL of an endpoint.
            access: what the suspect shows: `label`, `scores` or `weights`.
            query: all settings of the queries, instead of `access` alone.
            threshold_bits: bits of evidence for the outcome KEY-DEPENDENT.
            guard_log: log of the guard; None takes the one in the run folder, if there is one.
            progress: called with the name of the step and the fraction done.

        Raises:
            ModelError: the suspect takes images of another shape, or has another number of classes.
            SuspectError: the suspect's file is refused.
        """
        from wootz.workflows.verify import verify_suspect

        query = query or QueryConfig(access=access)
        return verify_suspect(
            self, suspect, query, threshold_bits=threshold_bits, guard_log=guard_log, progress=progress
        )[0]

    def register(self, tsa: str | None = None) -> dict[str, Any]:
        """Sign the registration with this model, once; see `wootz register`. The owner must be saved."""
        from wootz.workflows.register import register_run

        return register_run(self._saved("register"), tsa=tsa, owner=self)

    def claim(
        self,
        suspect: SuspectLike,
        access: Access = "scores",
        *,
        query: QueryConfig | None = None,
        force: bool = False,
        progress: Progress = lambda *_: None,
    ) -> Claim:
        """Reveal one part of the key, test the suspect with it, and return the signed claim.

        Registers the model first where that was not done. The owner must be saved: a revealed part is noted in the run
        folder and used against no other suspect.

        Raises:
            ConfigError: the owner is not saved, all parts of the key were revealed, `access` was not registered, or the
                whole key gives fewer bits than the claim needs (`force` claims all the same).
        """
        from wootz.workflows.claim import claim_suspect
        from wootz.workflows.register import is_registered

        if not is_registered(self._saved("claim")):
            self.register()
        return claim_suspect(self, suspect, query or QueryConfig(access=access), force=force, progress=progress)

    def train_hook(
        self,
        data: DataLike | None = None,
        *,
        bits: float = Marking().bits,
        even_steps: int = 0,
        check_every: int = Marking().check_every,
    ) -> MarkLoss:
        """Return the loss term of the marks, for a training loop of your own.

            marks = owner.train_hook()
            loss = loss + marks(model, (images, labels))

        The bits in the model are measured while it is trained: `marks.bits`, `marks.by_mark`, `marks.steps`. Once they
        are there, with a fifth to spare, `marks.enough` is true and the marks add no loss, until bits are lost again.

        Args:
            data: the owner's data; None takes those that the owner was prepared with.
            bits: evidence that is wanted of all marks together in the model itself.
            even_steps: steps within which each mark is to give its even part of the bits; later, all together suffice.
                Triggers take hundreds of steps; `runner-up`, which survives extraction, may take thousands.
            check_every: steps from one measurement of the bits to the next.

        Raises:
            ConfigError: a mark that needs more than a loss term, or no mark that a model carries.
        """
        if data is None and self._data is None:
            raise ConfigError("train_hook: this owner was read from a folder; give its data: train_hook(data)")
        dataset = self._data if data is None else as_dataset(data, **self.config.reading())
        assert dataset is not None
        check_same_data(self.about, dataset, self.folder or Path("owner"))
        cfg = Marking(bits=bits, even_steps=even_steps, check_every=check_every)
        settings, panel = self.config.mark_settings(), self.reference_models
        self._loop = MarkLoss(settings, self.keys, panel, dataset, cfg, seed=self.config.seed)
        return self._loop

    def _saved(self, step: str) -> Path:
        if self.folder is None:
            raise ConfigError(f"{step}: the owner is in memory only; call owner.save(folder) first")
        return self.folder

    def _write_references(self, folder: Path) -> None:
        shape, classes = _input_of(self.keys)
        for name, member in (self.references._asdict() if self.references else {}).items():
            if not (folder / "panel" / name / "model.json").exists():
                about = {name: self.about[name] for name in (*DATA_FIELDS, "eps", "seed") if name in self.about}
                spec = describe_module(member, shape, classes)
                write_model(folder / "panel" / name, member, spec, about | {"kind": "independent"})

    def _write_model(self, folder: Path) -> None:
        write_model(folder, self.model, describe_module(self.model, *_input_of(self.keys)), self.about)


def protect(
    model: nn.Module | str,
    data: DataLike,
    *,
    eps: float | None = None,
    wm_eps: float | None = None,
    marks: Sequence[str] | None = None,
    references: References | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
    config: Protection | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    resume: bool = False,
    data_dir: Path | None = None,
    execution: Execution | None = None,
    tsa: Tsa = None,
    tsa_policy: str = "",
    progress: Progress = lambda *_: None,
) -> Owner:
    """Train a copy of `model` from its present weights so that it resists evasion within `eps` and carries marks.

    Args:
        model: images float32 [N, C, H, W] in [0, 1] -> logits [N, K], normalization inside; or the name of one of
            `wootz.models.MODELS`, initialized from `seed`.
        data: a wootz data set or its name, a PyTorch data set, or (images, labels).
        eps: budget of adversarial training in pixels of [0, 1]; None takes the data set's customary one.
        wm_eps: budget of the triggers, larger than `eps`; None takes the customary multiple of `eps`.
        marks: names of `wootz.MARKS`; None takes `triggers`, `runner-up` and `guard`.
        references: independent models trained on the same kind of data; made unless given.
        settings: changes of any other setting, by its path (`{"recipe.epochs": 20}`) or as `key=value` texts.
        config: every setting, instead of `eps`, `wm_eps`, `marks`, `settings` and `seed`.
        seed: of everything random but keys.
        folder: run folder to write while training, so that a stopped call can be resumed.
        resume: continue what an earlier call with the same settings left in `folder`.
        data_dir: folder that named data sets are looked up in first.
        execution: device, precision and processes.
        tsa: URL of an RFC 3161 authority that stamps the registration before the keys are drawn, or a function from
            the registration's digest to the authority's response.
        tsa_policy: the authority's policy, a dotted object identifier; empty for its default.
        progress: called with the name of the step and the fraction done.

    Raises:
        ConfigError: an unknown mark, marks that exclude each other, or a `wm_eps` that is too small.
        ModelError: the model does not take the images, or does not return logits.
        DataError: too few images, or images outside [0, 1].
    """
    dataset, cfg, network, secret = resolve_run(model, data, eps, wm_eps, marks, settings, config, seed, data_dir)
    out = None if folder is None else Path(folder)
    if out is not None:
        begin_run(cfg, out, resume=resume)
    owner = prepare_owner(
        network,
        dataset,
        cfg,
        secret,
        references=references,
        folder=out,
        execution=execution or Execution(),
        tsa=tsa,
        tsa_policy=tsa_policy,
        progress=progress,
    )
    hook = hook_of(cfg.mark_settings(), owner.keys.by_mark, dataset, seed=cfg.seed)
    trained = train(
        cfg.recipe,
        network,
        dataset.train,
        dataset.validation,
        seed=cfg.seed,
        hook=hook,
        execution=execution,
        folder=out,
        resume=resume,
        progress=lambda done, figures: progress(f"training (loss {figures['loss']:.3f})", done),
    )
    owner._model, owner.history = trained.model, trained.history
    owner.about |= run_metadata(cfg, execution or Execution(), trained.best_epoch)
    if out is not None:
        owner._write_model(out)
    return owner


def begin_run(cfg: Protection, folder: Path, *, resume: bool) -> None:
    """Make a run folder and write its settings; the data of a resumed run may have been moved.

    Raises:
        ConfigError: the folder holds a model already, or was begun with other settings.
    """
    prepare_run_folder(folder, resume=resume)
    path = folder / "config.toml"
    if resume and path.exists():
        begun = replace(read_config(folder), data=cfg.data)
        if others := differences(begun.used_settings(), cfg.used_settings()):
            raise ConfigError(
                f"{path}: this run was begun with other settings ({', '.join(others[:_LISTED])}); "
                "resume it with the same ones"
            )
    write_bytes(path, to_toml(cfg))


def read_config(folder: Path) -> Protection:
    """Return the settings of the run at `folder`."""
    path = folder / "config.toml"
    if not path.is_file():
        raise ConfigError(f"{folder}: nothing to resume (it holds no config.toml)")
    try:
        return from_mapping(Protection, read_toml(path), str(path))
    except ConfigError as error:  # a value out of range is named without the file
        raise ConfigError(f"{path}: {str(error).removeprefix(f'{path}.')}") from error


def training_metadata(kind: Literal["protected", "independent"], cfg: Protection, data: Dataset) -> dict[str, Any]:
    """Return what `model.json` says of a model before it is trained: its kind, data, budget and seed."""
    return {
        "kind": kind,
        **data_metadata(data),
        "eps": cfg.recipe.eps,
        "seed": cfg.seed,
    }


def run_metadata(cfg: Protection, execution: Execution, best_epoch: int) -> dict[str, Any]:
    """Return what `model.json` says of a training: settings, digest, precision, and the epoch that was chosen."""
    return {
        "training": cfg.used_settings(),
        "digest": cfg.digest,
        "precision": "bf16" if execution.bfloat16 else "32",
        "best_epoch": best_epoch,
    }


def make_references(
    cfg: Protection, data: Dataset, folder: Path | None, *, execution: Execution, progress: Progress
) -> References:
    """Train the reference models, or read from `folder` those that are already there.

    They see images of at most `_REFERENCE_SIZE` pixels a side, so that large images do not make them large.
    """
    recipes = {
        "robust": Recipe(
            eps=cfg.recipe.eps,
            norm=cfg.recipe.norm,
            steps=cfg.panel.robust_steps,
            epochs=cfg.panel.robust_epochs,
            lr=cfg.panel.lr,
        ),
        "plain": Recipe(loss="natural", eps=cfg.recipe.eps, epochs=cfg.panel.plain_epochs, lr=cfg.panel.lr),
    }
    large = max(data.shape[1:]) > _REFERENCE_SIZE
    small = replace(
        cfg,
        model=REFERENCE_NETWORK,
        model_settings={},
        small_cnn=replace(cfg.small_cnn, width=cfg.panel.width),
        wrapper=Wrapper(size=_REFERENCE_SIZE) if large else Wrapper(),
    )
    return References(
        **{
            name: _reference(name, recipe, small.spec(data), cfg, data, folder, execution, progress)
            for name, recipe in recipes.items()
        }
    )


def _reference(
    name: str,
    recipe: Recipe,
    spec: ModelSpec,
    cfg: Protection,
    data: Dataset,
    folder: Path | None,
    execution: Execution,
    progress: Progress,
) -> nn.Module:
    if folder is not None and (folder / name / "model.json").exists():
        model, _, made = read_model(folder / name)
        check_same_data(made, data, folder / name)
        return model
    seed = derive(cfg.seed, "panel", name)
    trained = train(
        recipe,
        build(spec, seed),
        data.train,
        data.validation,
        seed=seed,
        execution=execution,
        progress=lambda done, _: progress(f"training the panel ({name})", done),
    )
    if folder is not None:
        about = {"kind": "independent", **data_metadata(data), "eps": recipe.eps, "seed": cfg.seed}
        write_model(folder / name, trained.model, spec, about | {"training": to_mapping(recipe)})
    return trained.model


def resolve_run(
    model: nn.Module | str,
    data: DataLike,
    eps: float | None,
    wm_eps: float | None,
    marks: Sequence[str] | None,
    settings: Sequence[str] | Mapping[str, Any],
    config: Protection | None,
    seed: int,
    data_dir: Path | None,
    *,
    triggers: Callable[[int], Triggers] | None = None,
) -> tuple[Dataset, Protection, nn.Module, bytes]:
    """Return the data set, all settings, the network and the secret of a run.

    The other settings are those of the preset `fast`; `triggers` gives its own for a number of classes.

    A named network gets a secret that follows from the owner's secret and the settings, so that a stopped run is
    continued exactly; for a module, whose weights the settings do not describe, the secret is new.
    """
    if config is not None and ((eps, wm_eps, marks, seed) != (None, None, None, 0) or settings):
        raise ConfigError("config: holds eps, wm_eps, marks, settings and seed already; give either config or those")
    dataset = as_dataset(data, data_dir, **({} if config is None else config.reading()))
    if config is None:
        config = preset("fast", data=dataset.name, eps=eps, wm_eps=wm_eps, seed=seed, count=len(dataset.train))
        config = config if marks is None else replace(config, marks=tuple(marks))
        config = config if triggers is None else replace(config, triggers=triggers(len(dataset.classes)))
        config = replace(config, model=model if isinstance(model, str) else MODULE)
        config = replace(config, size=dataset.size, skip_unreadable=dataset.unreadable > 0)
        config = change(config, settings)
    if isinstance(model, str):
        network = build(config.spec(dataset), config.seed)
        secret = run_secret(owner_secret(), config.digest)
    else:
        network, secret = model, fresh_secret()
    check_run(network, dataset, config)
    return dataset, config, network, secret


def check_run(model: nn.Module, data: Dataset, cfg: Protection) -> None:
    """Check, before anything is trained, what can be known of a model, its data and its marks.

    Classes that a model never answers need no images where its own answers are the labels.

    Raises:
        ConfigError: a setting or a mark does not fit.
        ModelError: the model does not take the images, or does not return logits.
        DataError: a class has too few images.
    """
    for warning in check_model(model, data.shape, len(data.classes)):
        warn_once(f"the model: {warning}")
    check_shift(cfg.recipe, data.shape)
    if not data.labels_from:
        check_balance(data)
    context = MarkContext(data=data, panel=(), model=model, eps=cfg.recipe.eps, wm_eps=cfg.wm_eps)
    check_marks(cfg.mark_settings(), context)


def prepare_owner(
    model: nn.Module,
    data: Dataset,
    cfg: Protection,
    secret: bytes,
    *,
    references: References | None,
    folder: Path | None,
    execution: Execution,
    tsa: Tsa,
    tsa_policy: str,
    progress: Progress,
    answered: Dataset | None = None,
) -> Owner:
    """Make the reference models, unless they are given or in `folder`, draw the keys, and return their owner.

    Args:
        model: the network that will carry the marks.
        data: the owner's images.
        cfg: all settings.
        secret: what the keys are derived from.
        references: independent models; None trains them.
        folder: the run folder that references and keys are written to; None writes nothing.
        execution: device and precision.
        tsa: see `protect`.
        tsa_policy: see `protect`.
        progress: called with the name of the step and the fraction done.
        answered: the same images with the labels that reference models and keys are made from; None takes those of
            `data`.

    Raises:
        ConfigError: no mark was chosen.
    """
    answered = data if answered is None else answered
    if not cfg.marks:
        raise ConfigError("marks: none were chosen; an owner needs one at least")
    if references is None:
        place = None if folder is None else folder / "panel"
        references = make_references(cfg, answered, place, execution=execution, progress=progress)
    for member in references:
        check_model(member, data.shape, len(data.classes))
    progress("making the key", 0.0)
    if folder is not None and has_keys(folder):
        keys = read_keys(folder)
    else:
        keys = _draw_keys(model, answered, cfg, secret, references, tsa, tsa_policy)
    about = training_metadata("protected", cfg, data)
    owner = Owner(keys=keys, references=references, config=cfg, about=about, folder=folder, _model=model, _data=data)
    if folder is not None:
        owner._write_references(folder)
        if not has_keys(folder):
            write_keys(folder, keys)
    return owner


def _draw_keys(
    model: nn.Module,
    data: Dataset,
    cfg: Protection,
    secret: bytes,
    references: Iterable[nn.Module],
    tsa: Tsa,
    tsa_policy: str,
) -> OwnerKeys:
    panel = tuple(references)
    context = MarkContext(data=data, panel=panel, model=model, eps=cfg.recipe.eps, wm_eps=cfg.wm_eps)
    return draw_keys(
        secret,
        prepare_all(cfg.mark_settings(), context, secret),
        classes=data.classes,
        shape=data.shape,
        panel=[weights_digest(member) for member in panel],
        owner=public_hex(signing_key()),
        boundary_search=BoundarySearchTerms.for_eps(cfg.recipe.eps, cfg.recipe.norm),
        options=cfg.claim.options(),
        fetch_token=partial(fetch_token, tsa, policy=tsa_policy) if isinstance(tsa, str) else tsa,
        policy=tsa_policy,
    )


def _input_of(keys: OwnerKeys) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Return the images' shape and the classes' names, as they were registered."""
    channels, height, width = keys.registration["shape"]
    return (channels, height, width), tuple(keys.registration["classes"])
