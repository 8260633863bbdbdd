"""Make a data set of 64 x 64 class folders from the public-domain drawings of Debian's package `openclipart-png`.

python benchmarks/clipart.py OUT [--source /usr/share/openclipart/png] [--size 64]

The classes are the folders with at least 100 drawings of 16 to 4096 pixels a side; links are skipped. Drawings are laid
over white and fitted into the square. Nothing of it is committed.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from PIL import Image

LEAST_IMAGES, LEAST_SIDE, MOST_SIDE = 100, 16, 4096


def drawn(file: Path, size: int) -> Image.Image | None:
    """Return a drawing as a square RGB image, or None for one that is no drawing of a usable size."""
    try:
        with Image.open(file) as opened:
            if not all(LEAST_SIDE <= side <= MOST_SIDE for side in opened.size):
                return None
            layer = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    layer.thumbnail((size, size), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (size, size), "white")
    square.alpha_composite(layer, ((size - layer.width) // 2, (size - layer.height) // 2))
    return square.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/openclipart/png"))
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    for folder in sorted(entry for entry in given.source.iterdir() if entry.is_dir()):
        files = sorted(file for file in folder.rglob("*.png") if file.is_file() and not file.is_symlink())
        if len(files) < LEAST_IMAGES:
            continue
        images = [image for file in files if (image := drawn(file, given.size)) is not None]
        print(f"{folder.name}: {len(images)} of {len(files)}")
        if len(images) >= LEAST_IMAGES:
            (given.out / folder.name).mkdir(parents=True)
            for number, image in enumerate(images):
                image.save(given.out / folder.name / f"{number:05d}.png")


if __name__ == "__main__":
    main()
