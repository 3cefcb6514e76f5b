"""DSC, HD95 and NSD in millimetres, their report, and the Ignite handler that computes both."""

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
