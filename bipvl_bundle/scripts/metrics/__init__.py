"""DSC, HD95 and NSD in millimetres, their reports, and the Ignite metric that computes them."""

from __future__ import annotations

from scripts.metrics.handler import SegmentationMetricsHandler
from scripts.metrics.report import MetricsReport
from scripts.metrics.scores import ClassScore, case_metrics, class_metrics, surface_metrics

__all__ = [
    "ClassScore",
    "MetricsReport",
    "SegmentationMetricsHandler",
    "case_metrics",
    "class_metrics",
    "surface_metrics",
]
