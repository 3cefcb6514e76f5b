"""Runs a bundle's folder in MONAI Deploy's operator: deploy_operator.py BUNDLE IMAGE OUTPUT"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Image, IOType, Operator
from monai.deploy.operators.monai_bundle_inference_operator import (
    BundleConfigNames,
    IOMapping,
    MonaiBundleInferenceOperator,
)

bundle, source, output = map(Path, sys.argv[1:])


class Source(Operator):
    """The volume as the SDK's DICOM operator hands it on: axes reversed, affine and spacing beside it."""

    def setup(self, spec: Any) -> None:
        spec.output("image")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        image = nib.load(source)
        names = (f"{axis}_pixel_spacing" for axis in ("row", "col", "depth"))
        meta = dict(zip(names, map(float, image.header.get_zooms()), strict=True))
        volume = np.swapaxes(image.get_fdata(dtype=np.float32), 0, 2)
        op_output.emit(Image(volume, {**meta, "nifti_affine_transform": image.affine}), "image")


class Sink(Operator):
    def setup(self, spec: Any) -> None:
        spec.input("pred")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        np.save(output, np.swapaxes(op_input.receive("pred").asnumpy(), 0, 2))


class Segmenter(Application):
    def compose(self) -> None:
        image, pred = (IOMapping(name, Image, IOType.IN_MEMORY) for name in ("image", "pred"))
        segment = MonaiBundleInferenceOperator(
            self,
            app_context=AppContext({}),
            input_mapping=[image],
            output_mapping=[pred],
            bundle_path=bundle,
            bundle_config_names=BundleConfigNames(config_names=["inference", "deploy"]),
            name="segment",
        )
        self.add_flow(Source(self, CountCondition(self, 1), name="source"), segment, {("image", "image")})
        self.add_flow(segment, Sink(self, name="sink"), {("pred", "pred")})


Segmenter().run()
