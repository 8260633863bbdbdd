"""Networks that are defined outside wootz, by the name of the callable that makes them.

A name is `package.module:factory`, `path/file.py:factory`, `timm:NAME` or `hf:FOLDER`. Making such a network runs its
code, so names come from an owner's own command line or run folder, never from a suspect.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from torch import nn

from wootz.errors import ConfigError, Error
from wootz.extras import require
from wootz.models.architectures import MODELS
from wootz.registry import nearest

FORMS = "package.module:factory, file.py:factory, timm:NAME or hf:FOLDER"


def is_factory(name: str) -> bool:
    """Return whether `name` is the name of a factory and not of a built-in architecture."""
    return ":" in name


def resolved_name(name: str) -> str:
    """Return the name of a network, with the path of a file or folder made absolute, so that it holds in any folder.

    Raises:
        ConfigError: it is neither a built-in architecture nor the name of a factory.
    """
    if not is_factory(name):
        if name not in MODELS:
            raise ConfigError(f"unknown model {name!r}: {nearest(name, MODELS)}, or {FORMS}")
        return name
    place, _, entry = name.rpartition(":")
    if place == "hf":
        return f"hf:{os.path.abspath(entry)}" if os.path.exists(entry) else name
    return f"{os.path.abspath(place)}:{entry}" if place.endswith(".py") else name


def make_network(
    name: str, settings: Mapping[str, Any], shape: tuple[int, int, int], num_classes: int | None
) -> nn.Module:
    """Call the factory `name` and return its network.

    A factory gets the settings, and whichever of `num_classes`, `shape` and `in_channels` it has parameters for.

    Args:
        name: see the module.
        settings: keyword arguments.
        shape: channels, height and width of the images.
        num_classes: number of classes K; None leaves it to the factory.

    Raises:
        ConfigError: there is no such file, module, factory or setting, or it does not return an `nn.Module`.
    """
    place, _, entry = name.rpartition(":")
    try:
        make: _Make = _LIBRARIES.get(place, _call_own)
        network = make(place, entry, settings, shape, num_classes)
    except Error:
        raise
    except Exception as error:  # code of others may raise anything
        raise ConfigError(f"{name}: cannot be made ({type(error).__name__}: {error})") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{name}: returned {type(network).__name__}, not an nn.Module")
    return network


def source_digest(name: str) -> str:
    """Return the SHA-256 of the file that defines the network, or the version of the library that does.

    Raises:
        ConfigError: there is no such file, module or factory.
    """
    place = name.rpartition(":")[0]
    if place in _LIBRARIES:
        package = _PACKAGES[place]
        require(place)
        return f"{package} {metadata.version(package)}"
    file = Path(place) if place.endswith(".py") else Path(_import(place).__file__ or "")
    try:
        return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    except OSError as error:
        raise ConfigError(f"{name}: {file}: {error.strerror}; a network needs the code that defines it") from error


def _call_own(
    place: str, entry: str, settings: Mapping[str, Any], shape: tuple[int, int, int], num_classes: int | None
) -> Any:
    module = _import(place)
    try:
        factory = attrgetter(entry)(module)
    except AttributeError:
        factory = None
    if not callable(factory):
        raise ConfigError(f"{place}: has no callable {entry!r}")
    return factory(
        **_arguments(factory, {"num_classes": num_classes, "shape": shape, "in_channels": shape[0]}, settings)
    )


def _arguments(factory: Callable[..., Any], offered: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not open_ended and (unknown := [name for name in settings if name not in parameters]):
        raise ConfigError(f"model.{unknown[0]}: no such setting; {nearest(unknown[0], list(parameters))}")
    return {name: value for name, value in offered.items() if name in parameters} | dict(settings)


def _import(place: str) -> ModuleType:
    """Import a module by name, or from a `.py` file; modules in the current folder, or beside the file, are found."""
    try:
        if not place.endswith(".py"):
            with _searching(os.getcwd()):
                return importlib.import_module(place)
        path = os.path.abspath(place)
        if not os.path.isfile(path):
            raise ConfigError(f"{place}: there is no such file; a network needs the code that defines it")
        name = f"wootz_factory_{hashlib.sha256(path.encode()).hexdigest()[:16]}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickles look it up there
        try:
            with _searching(os.path.dirname(path)):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module
    except Error:
        raise
    except Exception as error:  # code of others may raise anything
        raise ConfigError(f"{place}: cannot be imported ({type(error).__name__}: {error})") from error


@contextmanager
def _searching(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _timm(_: str, entry: str, settings: Mapping[str, Any], shape: tuple[int, int, int], num_classes: int | None) -> Any:
    require("timm")
    import timm

    classes = {} if num_classes is None else {"num_classes": num_classes}
    return timm.create_model(entry, **{"pretrained": False, "in_chans": shape[0], **classes, **settings})


def _hugging_face(
    _: str, entry: str, settings: Mapping[str, Any], shape: tuple[int, int, int], num_classes: int | None
) -> Any:
    require("hf")
    from transformers import AutoConfig, AutoModelForImageClassification  # its calls have no types

    classes = {} if num_classes is None else {"num_labels": num_classes}
    config = AutoConfig.from_pretrained(
        entry, local_files_only=True, trust_remote_code=False, **{"num_channels": shape[0], **classes, **settings}
    )
    return AutoModelForImageClassification.from_config(config, trust_remote_code=False)


_Make = Callable[[str, str, Mapping[str, Any], tuple[int, int, int], int | None], Any]
_LIBRARIES: Mapping[str, _Make] = MappingProxyType({"timm": _timm, "hf": _hugging_face})
_PACKAGES: Mapping[str, str] = MappingProxyType({"timm": "timm", "hf": "transformers"})
