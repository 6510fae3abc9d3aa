"""What a cell of a notebook shows while it runs. It knows no model and no training."""

from __future__ import annotations

import io
import sys
from typing import Literal

from PIL import Image

from tessera.config.merging import cast
from tessera.errors import ConfigError, install

Wish = Literal["auto", "on", "off"]
"""Whether a cell shows what happens; auto: where there is one."""


def in_notebook() -> bool:
    """Whether a cell of a notebook runs this. Its kernel has loaded IPython, so that nothing is imported here."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def shows(wish: Wish, name: str) -> bool:
    """Whether a wish, of that name, is granted here. Raises ConfigError for `on` where no notebook runs this."""
    cast(wish, Wish, name)
    if wish == "on" and not in_notebook():
        raise ConfigError(
            f"{name} is on, which needs a cell of a notebook: {install('notebook')}, run it in one, or leave "
            f"{name} out."
        )
    return wish != "off" and in_notebook()


class Cell:
    """One output of the cell that runs; each picture takes the place of the one before."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle, Image  # a kernel has it

        self.handle, self.wrap, self.begun = DisplayHandle(), Image, False

    def show(self, picture: Image.Image) -> None:
        picture.save(buffer := io.BytesIO(), "PNG")
        shown = self.wrap(data=buffer.getvalue())
        (self.handle.update if self.begun else self.handle.display)(shown)
        self.begun = True
