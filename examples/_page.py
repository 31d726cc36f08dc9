"""What the examples with a page in docs/ share: options, tables, pictures, the page's blocks."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image

BLUE, SKY, ORANGE, GREEN = "#0072b2", "#56b4e9", "#d55e00", "#009e73"
PURPLE, AMBER = "#cc79a7", "#e69f00"


class Page:
    """What an example writes into its folder: ``NAME.md``, the blocks of docs/NAME.md; pictures.

    ``python -m bench.example_pages`` puts them where they belong. What is on the command line is
    in `options`; `extra` adds to the parser what one example alone is asked.
    """

    def __init__(
        self,
        name: str,
        about: str,
        extra: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    ) -> None:
        parser = argparse.ArgumentParser(description=about.splitlines()[0])
        parser.add_argument("--output", type=Path, default=Path(), help="the folder to write to")
        parser.add_argument("--quick", action="store_true", help="less of what takes long")
        extra(parser)
        self.options = parser.parse_args()
        self.quick: bool = self.options.quick
        self.name, self.folder = name, self.options.output
        self.folder.mkdir(parents=True, exist_ok=True)
        self._blocks: list[str] = []

    def tell(self, block: str, content: str) -> None:
        """Print a block, and write it to the file."""
        print(f"\n{content}", flush=True)
        self._blocks.append(f"<!-- {block}:start -->\n\n{content}\n\n<!-- {block}:end -->\n")
        (self.folder / f"{self.name}.md").write_text("\n".join(self._blocks), encoding="utf-8")

    def save(self, figure: Any, picture: str, credit: str = "", colours: int = 0) -> None:
        """Write ``NAME_PICTURE.png``; with a palette it is a third of the size."""
        if credit:
            figure.supxlabel(credit, fontsize=7, color="0.4", x=0.99, ha="right")
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=100)
        plt.close(figure)
        image = Image.open(buffer).convert("RGB")
        if colours:
            image = image.quantize(colours, kmeans=1, dither=Image.Dither.NONE)
        image.save(self.folder / f"{self.name}_{picture}.png", optimize=True)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, the first column aligned left and the others right."""
    rule = [":--", *["--:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def answers(found: dict[str, str]) -> str:
    """Return a list of what is said, each with what was measured."""
    return "\n".join(f"- *{said}*: {measured}." for said, measured in found.items())


def open_axes(*axes: Any) -> None:
    """Draw a light grid, and no frame above and to the right."""
    for axis in axes:
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
