"""Event files for TensorBoard."""

import os
from typing import Any

import numpy as np

from linnet._extra import require

__all__ = ["SummaryWriter"]


class SummaryWriter:
    """Writes values as event files.

    Args:
        log_dir: The folder.
        auto_flush: Whether each value is on the disk at once.
    """

    def __init__(self, log_dir: str | os.PathLike[str], auto_flush: bool = True):
        package = require("tensorboardX", "compat", "a writer for TensorBoard")
        self._writer: Any = package.SummaryWriter(os.fspath(log_dir))
        self._auto_flush = auto_flush

    def close(self) -> None:
        """Ends the files. Nothing can be written any more."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def flush(self) -> None:
        """Puts what was written on the disk."""
        self._writer.flush()

    def _written(self) -> None:
        if self._auto_flush:
            self.flush()

    def scalar(self, tag: str, value: Any, step: int) -> None:
        """Writes a number."""
        self._writer.add_scalar(tag, float(np.asarray(value)), step)
        self._written()

    def image(self, tag: str, image: Any, step: int, max_outputs: int = 3) -> None:
        """Writes an image `[height, width, channels]`, or some of several."""
        images = np.asarray(image)
        if images.ndim == 2:
            images = images[..., None]
        if images.ndim == 3:
            self._writer.add_image(tag, images, step, dataformats="HWC")
        else:
            for i, one in enumerate(images[:max_outputs]):
                self._writer.add_image(f"{tag}/{i}", one, step, dataformats="HWC")
        self._written()

    def audio(
        self,
        tag: str,
        audiodata: Any,
        step: int,
        sample_rate: int = 44100,
        max_outputs: int = 3,
    ) -> None:
        """Writes sounds `[number, samples, channels]`, within -1 and 1."""
        sounds = np.asarray(audiodata)
        assert sounds.ndim == 3, "audiodata has the axes (number, samples, channels)"
        for i, one in enumerate(sounds[:max_outputs]):
            self._writer.add_audio(f"{tag}/{i}", one, step, sample_rate)
        self._written()

    def histogram(self, tag: str, values: Any, step: int, bins: Any = None) -> None:
        """Writes how values are distributed."""
        options = {} if bins is None else {"bins": bins}
        self._writer.add_histogram(tag, np.asarray(values).ravel(), step, **options)
        self._written()

    def text(self, tag: str, textdata: Any, step: int) -> None:
        """Writes a text, or several, one below the other."""
        texts = [textdata] if isinstance(textdata, str) else list(textdata)
        self._writer.add_text(tag, "\n\n".join(texts), step)
        self._written()

    def hparams(self, hparams: dict[str, Any]) -> None:
        """Writes hyperparameters."""
        self._writer.add_hparams(hparams, {})
        self._written()

    def write(self, tag: str, tensor: Any, step: int, metadata: Any = None) -> None:
        """Writes an array, as its distribution; metadata is of no effect."""
        del metadata
        self.histogram(tag, tensor, step)
