"""The web page, on Gradio: a volume, a table of words, the masks of before and after."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import gradio as gr
import nibabel as nib
import numpy as np

from scripts.app.difference import HEAD, PLANES, changed_voxels, changes, class_names, legend_html, most_changed, slices
from scripts.app.segmenter import Segmented, WordSegmenter
from scripts.data.cases import mask_name
from scripts.words.files import write_table

KEPT = 3600  # seconds after which uploads and results are deleted
WAITING = 16  # visitors
Update = Any


class WordsPage:
    """The page of one bundle. A visitor's volumes and words are in the state of the visit alone.

    Args:
        segmenter: of the bundle.
        examples: volumes to choose from.
        title: of the page.
    """

    def __init__(self, segmenter: WordSegmenter, examples: list[Path] | None = None, title: str = "Try words") -> None:
        self.segmenter = segmenter
        self.examples = {path.name: path for path in examples or []}
        self.title = title
        self.scratch = tempfile.TemporaryDirectory(prefix="try_words_")  # goes with the process
        self.lock = threading.Lock()  # beside the queue: whoever calls, one request runs at a time

    def build(self) -> gr.Blocks:
        """Return the page, to be launched."""
        with gr.Blocks(title=self.title, analytics_enabled=False, delete_cache=(KEPT // 4, KEPT)) as page:
            gr.Markdown(f"# {self.title}")
            gr.Markdown("Change what is written about a class, press Segment, and see its mask move. Research only.")
            before, after = gr.State(None, time_to_live=KEPT), gr.State(None, time_to_live=KEPT)
            with gr.Row():
                chosen = gr.Dropdown(list(self.examples), value=None, label="Volume of the bundle", elem_id="example")
                upload = gr.File(label="Or your own, NIfTI", file_types=[".nii", ".gz"], elem_id="upload")
            status = gr.Textbox(
                label="State", value="Choose a volume.", interactive=False, elem_id="status", render=False
            )
            words = self._words(status)
            start = gr.Button("Segment", variant="primary", elem_id="segment")
            status.render()
            plane, results = self._results_view(before, after)
            seen = [before, after, status, *results]
            queue: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "segment"}
            start.click(self.segment, [chosen, upload, words, before, plane], seen, api_visibility="private", **queue)
        page.queue(max_size=WAITING, api_open=False)
        return page

    def _words(self, status: gr.Textbox) -> gr.Dataframe:
        """Lay out the table of words and what changes it; return the table."""
        classes, head = list(self.segmenter.table.classes), ["class", *self.segmenter.table.concepts]
        words = gr.Dataframe(
            value=self.segmenter.rows,
            headers=head,
            datatype="str",
            type="array",
            interactive=True,
            column_count=len(head),
            wrap=True,
            label="Words: a row per class; add and remove rows",
            elem_id="words",
        )
        with gr.Row():
            add = gr.Button("Add a class", elem_id="add")
            first = gr.Dropdown(classes, value=None, label="Exchange the words of", elem_id="first")
            second = gr.Dropdown(classes, value=None, label="and of", elem_id="second")
            exchange = gr.Button("Exchange", elem_id="exchange")
            reset = gr.Button("Back to the bundle's words", elem_id="reset")
        add.click(lambda rows: [*rows, [""] * len(head)], words, words, api_visibility="private")
        exchange.click(self.exchange, [words, first, second], [words, status], api_visibility="private")
        reset.click(lambda: self.segmenter.rows, None, words, api_visibility="private")
        return words

    def _results_view(self, before: gr.State, after: gr.State) -> tuple[gr.Radio, list[Any]]:
        """Lay out what a request shows; return the choice of the plane, and what `_results` fills, in its order."""
        with gr.Row():
            plane = gr.Radio(list(PLANES), value="axial", label="Plane")
            index = gr.Slider(0, 1, step=1, value=0, label="Slice", elem_id="slice")
        with gr.Row():
            pictures = [
                gr.Image(label=label, interactive=False, format="png", elem_id=name, buttons=["fullscreen"])
                for label, name in (("Before", "before"), ("After", "after"), ("Changed voxels", "changed"))
            ]
        legend = gr.HTML(label="Classes", elem_id="legend")
        volumes = gr.Dataframe(headers=HEAD, label="Volumes", interactive=False, elem_id="volumes")
        with gr.Row():
            mask = gr.File(label="Mask", interactive=False, elem_id="mask")
            written = gr.File(label="Words, a concept table", interactive=False, elem_id="table")
        index.input(self.show, [before, after, plane, index], pictures, api_visibility="private")
        plane.change(self.turn, [before, after, plane], [index, *pictures], api_visibility="private")
        return plane, [index, *pictures, legend, volumes, mask, written]

    def segment(
        self,
        chosen: str | None,
        upload: str | None,
        rows: list[list[Any]],
        before: tuple[str, Segmented] | None,
        plane: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio asks for it
    ) -> list[Update]:
        """Segment the volume in the words of the page, and in the bundle's where that was not done yet."""
        kept: list[Update] = [gr.skip() for _ in range(11)]
        try:
            table = self.segmenter.table_of(rows)
            path = Path(upload) if upload else self.examples.get(chosen or "")
            if path is None:
                raise ValueError("Choose a volume, or upload one.")
            with self.lock:
                tell = lambda share, text: progress(share, desc=text)  # noqa: E731
                if before is None or before[0] != str(path):
                    before = (str(path), self.segmenter.segment(path, progress=tell))
                after = before[1] if table is self.segmenter.table else self.segmenter.segment(path, table, tell)
        except (ValueError, TimeoutError) as error:
            kept[2] = f"Not segmented: {error}"
            return kept
        return [before, after, *self._results(before[1], after, plane)]

    def exchange(self, rows: list[list[Any]], first: str | None, second: str | None) -> tuple[Update, str]:
        """Exchange the words of two classes in the table of the page."""
        places = {row[0]: place for place, row in enumerate(rows)}
        if first == second or first not in places or second not in places:
            return gr.skip(), "Choose two classes of the table."
        changed = [list(row) for row in rows]
        one, other = places[first], places[second]
        changed[one][1:], changed[other][1:] = changed[other][1:], changed[one][1:]
        return changed, f"'{first}' now has the words of '{second}', and the other way round. Press Segment."

    def show(self, before: Any, after: Segmented | None, plane: str, index: int) -> list[Update]:
        """Return the pictures of a slice."""
        if before is None or after is None:
            return [gr.skip()] * 3
        return list(slices(before[1], after, plane, index))

    def turn(self, before: Any, after: Segmented | None, plane: str) -> list[Update]:
        """Return slider and pictures of another plane."""
        if before is None or after is None:
            return [gr.skip()] * 4
        index = most_changed(before[1], after, plane)
        depth = after.image.shape[PLANES[plane]]
        return [gr.Slider(0, depth - 1, step=1, value=index), *slices(before[1], after, plane, index)]

    def _results(self, before: Segmented, after: Segmented, plane: str) -> list[Update]:
        names = class_names(before, after)
        rows = changes(before, after)
        changed = changed_voxels(before, after)
        state = f"{after.case}: segmented in {after.seconds:.1f} s; {changed} voxels changed their class."
        index, *pictures = self.turn(("", before), after, plane)
        return [state, index, *pictures, legend_html(names), rows, *self._files(after)]

    def _files(self, after: Segmented) -> list[str]:
        """Write mask and words for the visitor, and delete those of long ago; Gradio hands on copies."""
        for old in Path(self.scratch.name).iterdir():
            if time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=self.scratch.name))
        mask, words = folder / mask_name(after.case), folder / f"{after.case}_words.yaml"
        nib.save(nib.Nifti1Image(after.labels.astype(np.uint16), after.affine), mask)
        write_table(after.table, words)
        return [str(mask), str(words)]
