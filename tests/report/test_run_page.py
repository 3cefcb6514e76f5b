"""The page is read as a browser reads it: by its HTML."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from scripts.report import viewer
from scripts.report.page import Page, Section, Table, write_page
from scripts.report.run_page import write_run_page
from scripts.report.run_report import report
from scripts.whole_file import write_rows, write_text


class Seen(HTMLParser):
    """Texts, attributes and tags of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_page_shows_scores_and_cases_by_rule(evaluated: Path) -> None:
    seen = Seen(write_run_page(evaluated, evaluated.parent))
    assert [heading["id"] for heading in seen.all("section")] == ["scores", "cases", "viewer"]
    assert re.findall(r"(\w): (best|median|worst)\.", seen.text) == [("a", "best"), ("c", "median"), ("b", "worst")]
    assert [link["data-case"] for link in seen.all("a") if "data-case" in link] == ["a", "c", "b"]


def test_every_picture_is_in_the_page_and_has_words(evaluated: Path) -> None:
    pictures = Seen(write_run_page(evaluated, evaluated.parent)).all("img")
    assert len(pictures) == 4
    for one in pictures:
        kind, content = str(one["src"]).split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content).startswith(b"\x89PNG")
        assert len(str(one["alt"])) > 20


def test_page_asks_for_nothing_from_elsewhere(evaluated: Path) -> None:
    seen = Seen(write_run_page(evaluated, evaluated.parent))
    addresses = [str(a[key]) for _, a in seen.tags for key in ("src", "href") if a.get(key)]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "http" not in (evaluated / "report.html").read_text(encoding="utf-8").replace("http-equiv", "")


def test_volumes_of_the_viewer_are_those_of_the_case(evaluated: Path, labels: np.ndarray) -> None:
    write_run_page(evaluated, evaluated.parent)
    text = (evaluated / "report_files/a.js").read_text()
    assert text.startswith('(window.reportVolumes ??= {})["a"] = ')
    layers = json.loads(text.split(" = ", 1)[1].rstrip(";\n"))
    assert list(layers) == ["image", "reference", "prediction"]
    volume = viewer.nib.Nifti1Image.from_bytes(viewer.gzip.decompress(base64.b64decode(layers["reference"])))
    np.testing.assert_array_equal(volume.dataobj, labels)
    np.testing.assert_array_equal(volume.header.get_zooms(), [2, 3, 4])
    assert (evaluated / "report_files/niivue.umd.js").is_file()
    assert "BSD 2-Clause" in (evaluated / "report_files/LICENSE").read_text()


def test_large_volumes_are_thinned_and_the_page_knows(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "MOST_VOXELS", 6 * 5 * 4)
    seen = Seen(write_run_page(evaluated, evaluated.parent))
    data = json.loads(seen.text[seen.text.index('{"cases"') :].split("\n")[0])
    assert {case["step"] for case in data["cases"]} == {2}
    layers = json.loads((evaluated / "report_files/a.js").read_text().split(" = ", 1)[1].rstrip(";\n"))
    volume = viewer.nib.Nifti1Image.from_bytes(viewer.gzip.decompress(base64.b64decode(layers["image"])))
    assert volume.shape == (6, 5, 4)
    np.testing.assert_allclose(np.diag(volume.affine), [4, 6, 8, 1])


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'"
    section = Section("run", evil, text=[evil], tables=[Table(evil, [evil], [[evil]])])
    case = {"case": evil, "title": evil, "file": evil, "layers": [evil], "step": 1}
    write_page(tmp_path / "x.html", Page(evil, [section], "files", [case], [{"name": evil, "colour": "#000000"}]))
    text = (tmp_path / "x.html").read_text()
    assert "<script>alert" not in text
    seen = Seen(tmp_path / "x.html")
    assert seen.text.count(evil) >= 6
    data = next(line for line in text.splitlines() if 'id="page-data"' in line)
    assert json.loads(data.split(">", 1)[1].rsplit("<", 1)[0])["cases"] == [case]


def test_reading_and_remarks_are_shown(evaluated: Path) -> None:
    folder = evaluated.parent / "reading"
    folder.mkdir()
    row = {"wording": "right words", "kind": "right", "dice_own": "0.9000", "dice_words": "0.9000", "missed": 0}
    write_rows(folder / "reading.csv", [row])
    write_text(folder / "reading.md", "The words decide.\n\n| table |\n")
    (evaluated / "cases/b_seg.nii.gz").unlink()
    report(str(evaluated.parent))
    seen = Seen(evaluated / "report.html")
    assert "The words decide." in seen.text
    assert "right words" in seen.text
    assert "Case b (worst) cannot be shown" in seen.text


def test_damaged_files_cost_their_section_alone(evaluated: Path) -> None:
    write_text(evaluated / "evaluation.json", json.dumps({"concepts": ["shape"]}))
    (evaluated / "report_files").mkdir()
    np.savez(evaluated / "report_files/model.npz", states_after=np.ones((5, 3)), similarities=np.ones((2, 9, 9)))
    seen = Seen(write_run_page(evaluated, evaluated.parent))
    assert "Not shown: " in seen.text
    assert "Scores by class" in seen.text


def test_without_scores_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="evaluate first"):
        report(str(tmp_path))
