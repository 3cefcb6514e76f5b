"""The files with which a released bundle starts its page for words on a model hub (a Space)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.whole_file import write_text

GRADIO = "6.31.0"  # as in requirements-app.txt
APP = '''"""The page to try words on, as a Space of a model hub starts it. On your own machine: python app.py"""

from pathlib import Path

from scripts.app.command import words_page

page = words_page(str(Path(__file__).parent))

if __name__ == "__main__":
    page.launch(max_file_size="200mb", footer_links=[])
'''


def write_space(draft: Path, facts: Mapping[str, Any]) -> None:
    """Write `app.py` and `requirements.txt` into a bundle.

    Args:
        draft: the bundle's folder
        facts: its metadata, for the versions
    """
    pins = {"torch": facts["pytorch_version"], "monai": facts["monai_version"], "numpy": facts["numpy_version"]}
    pins |= {**facts["required_packages_version"], "gradio": GRADIO}
    write_text(draft / "app.py", APP)
    write_text(draft / "requirements.txt", "".join(f"{name}=={version}\n" for name, version in pins.items()))
