"""Where the known data sets come from: local folders first, a checksummed download last."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import platformdirs

from wootz.data.idx import parse_idx, read_raw
from wootz.errors import DataError

SYSTEM = Path("/usr/share/datasets")
"""Where packages of the operating system install data sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One IDX file: digest of its content, and of the gzip file that the mirror serves."""

    name: str
    sha256: str
    gz_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set of four IDX files and the mirror that serves them gzipped."""

    url: str
    train_images: File
    train_labels: File
    test_images: File
    test_labels: File

    @property
    def files(self) -> tuple[File, ...]:
        """The four files, in the order in which they are read."""
        return self.train_images, self.train_labels, self.test_images, self.test_labels


SOURCES = MappingProxyType(
    {
        "mnist": Source(
            url="https://ossci-datasets.s3.amazonaws.com/mnist/",
            train_images=File(
                name="train-images-idx3-ubyte",
                sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                gz_sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            train_labels=File(
                name="train-labels-idx1-ubyte",
                sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                gz_sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            test_images=File(
                name="t10k-images-idx3-ubyte",
                sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                gz_sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            test_labels=File(
                name="t10k-labels-idx1-ubyte",
                sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                gz_sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        "fashion-mnist": Source(
            url="https://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            train_images=File(
                name="train-images-idx3-ubyte",
                sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                gz_sha256="b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
            ),
            train_labels=File(
                name="train-labels-idx1-ubyte",
                sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                gz_sha256="0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
            ),
            test_images=File(
                name="t10k-images-idx3-ubyte",
                sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                gz_sha256="cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
            ),
            test_labels=File(
                name="t10k-labels-idx1-ubyte",
                sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                gz_sha256="8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
            ),
        ),
    }
)


def places(name: str, data_dir: Path | None = None) -> tuple[Path, ...]:
    """Return the folders where `name` is looked for, first to last."""
    roots = [Path(root) for root in (data_dir, os.environ.get("WOOTZ_DATA")) if root]
    return (*(root / name for root in roots), cache_folder(name), SYSTEM / name)


def cache_folder(name: str) -> Path:
    """Return the folder that downloads of `name` go to."""
    return Path(platformdirs.user_cache_dir("wootz")) / name


def find(name: str, data_dir: Path | None = None) -> Path:
    """Return the first folder that holds all files of `name`.

    Raises:
        DataError: none does; names every place looked at and the command that fetches it.
    """
    for folder in places(name, data_dir):
        if all(_locate(folder, file) for file in SOURCES[name].files):
            return folder
    looked = ", ".join(str(folder) for folder in places(name, data_dir))
    raise DataError(f"{name}: not found in {looked}; fetch it with: wootz data fetch {name}")


def read(name: str, folder: Path) -> list[bytes]:
    """Return the four files' content, in the order of `Source.files`, each checked against its digest."""
    contents = []
    for file in SOURCES[name].files:
        path = _locate(folder, file)
        if path is None:
            raise DataError(f"{folder / file.name}: missing")
        data = read_raw(path)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            parse_idx(data, path)  # a truncated or mis-sized file says so itself
            raise DataError(f"{path}: is an IDX file, but not {name}'s (its SHA-256 differs from the published one)")
        contents.append(data)
    return contents


def fetch(name: str) -> Path:
    """Download `name` into the user cache, checked by SHA-256, and return the folder."""
    import pooch

    source, folder = SOURCES[name], cache_folder(name)
    for file in source.files:
        try:
            pooch.retrieve(
                url=f"{source.url}{file.name}.gz",
                known_hash=f"sha256:{file.gz_sha256}",
                fname=f"{file.name}.gz",
                path=folder,
            )
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong hash a ValueError
            raise DataError(f"{name}: {file.name}.gz can not be fetched from {source.url}: {error}") from error
    return folder


def _locate(folder: Path, file: File) -> Path | None:
    candidates = (folder / f"{file.name}.gz", folder / file.name)
    return next((path for path in candidates if path.is_file()), None)
