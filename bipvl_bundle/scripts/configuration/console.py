"""Filters of what a command prints: the bundle's own lines, and of the libraries what a user can act on."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

from scripts.configuration.errors import end_in_order, show_errors_last

__all__ = ["prepare_console", "prepare_run"]

# How a warning begins, its kind, and why no user of this bundle can act on it. MONAI's "parsing config_file" comes
# before anything of the bundle is loaded by `monai.bundle run`.
WARNINGS: tuple[tuple[str, type[Warning], str], ...] = (
    ("parsing config_file", UserWarning, "the configs are those of the command that was called"),
    ("NvImgCodecPydicomReader: nvImageCodec decoder", UserWarning, "MONAI looks for a codec of DICOM in any image"),
    ("monai.metrics.utils get_mask_edges", FutureWarning, "MONAI calls its own deprecated argument"),
    ("The string .* is unlikely to represent the intended person", UserWarning, "the series' name, not to be printed"),
)
# From which level a logger is heard, and why not from below.
LOGGERS: tuple[tuple[str, int, str], ...] = (
    ("monai.data.nvimgcodec_pydicom_plugin", logging.ERROR, "the same codec"),
    ("monai.bundle.workflows", logging.ERROR, "that a command leaves logging as it is"),
    ("ignite.engine.engine", logging.CRITICAL, "the error that ends a run is told once, at its end"),
)


def prepare_run(log_dir: str | Path | None = None) -> None:
    """Call `prepare_console` if the process is ``python -m monai.bundle``.

    To be the second step of ``initialize``, after the bundle root has joined ``sys.path``. What stops a run before
    that, such as a config file that is absent, ends with MONAI's own message below a traceback. A server, a notebook
    or a test that loads the configs keeps its own hook and filters.

    Args:
        log_dir: see `show_errors_last`.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is not None and Path(main).parts[-3:] == ("monai", "bundle", "__main__.py"):
        prepare_console(log_dir)


def prepare_console(log_dir: str | Path | None = None) -> None:
    """Silence the library ``WARNINGS`` that no user can act on, and print errors last in this process.

    Args:
        log_dir: see `show_errors_last`.
    """
    for message, kind, _ in WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=kind)
    for name, level, _ in LOGGERS:
        logging.getLogger(name).setLevel(level)
    show_errors_last(log_dir)
    end_in_order()
