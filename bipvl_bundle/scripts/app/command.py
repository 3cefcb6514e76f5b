"""The command `try_words`: a web page on which words are changed and the mask is seen to change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from scripts.app.segmenter import Limits, WordSegmenter
from scripts.data.cases import NIFTI_SUFFIXES

try:
    from scripts.app.page import WordsPage
except ModuleNotFoundError as error:
    if error.name != "gradio":
        raise
    WordsPage = None  # type: ignore[misc, assignment]


def try_words(
    bundle: str = ".",
    images: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    megabytes: int = 200,
    seconds: float = 600.0,
    **options: Any,
) -> None:
    """Serve a web page on which the words of a bundle are changed and the mask is seen to change; Ctrl-C ends it.

        python -m scripts.cli try_words . --images data/phantom/imagesTs

    It needs Gradio: pip install -r requirements-app.txt. Visitors are served one after the other. Uploads and results
    are deleted within two hours, and all of them at the end.

    Args:
        bundle: its folder
        images: folder of NIfTI files to choose from
        host: address to serve at; 0.0.0.0 lets others in
        port: by default the first free one from 7860 on
        megabytes: largest upload
        seconds: longest request
        options: further options of inference.yaml, such as --ckpt_path runs/mine/models/model.pt
    """
    page = words_page(bundle, images, Limits(seconds=seconds), **options)
    page.launch(
        server_name=host,
        server_port=port,
        max_file_size=f"{megabytes}mb",
        share=False,
        show_error=False,
        footer_links=[],
    )


def words_page(bundle: str, images: str | None = None, limits: Limits | None = None, **options: Any) -> Any:
    """Return the page of a bundle as `gradio.Blocks`, to be launched.

    Raises:
        FileNotFoundError: the folder is no bundle, has no model, or there is no folder of images.
    """
    if WordsPage is None:
        sys.exit("Error: try_words needs Gradio, which is not installed: pip install -r requirements-app.txt")
    folder = Path(images).expanduser() if images else None
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of images '{folder}'.")
    examples = [path for path in sorted(folder.iterdir()) if path.name.endswith(NIFTI_SUFFIXES)] if folder else []
    return WordsPage(WordSegmenter(bundle, limits, **options), examples).build()
