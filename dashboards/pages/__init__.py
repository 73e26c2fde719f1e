"""The pages: each asks the feed, arranges fragments and figures, and follows."""

from dashboards.pages.camera import CameraPage
from dashboards.pages.exposure import ExposurePage
from dashboards.pages.night import NightPage
from dashboards.pages.page import PageHandler

__all__ = ["CameraPage", "ExposurePage", "NightPage", "PageHandler"]
