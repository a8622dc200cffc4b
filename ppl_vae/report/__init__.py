"""Pictures of arrays and the page of a run; it sees NumPy arrays, numbers and text only."""

from ppl_vae.report.contents import Comparison, Contents, Finding, Labels, Row
from ppl_vae.report.grid import image_grid
from ppl_vae.report.page import html

__all__ = ["Comparison", "Contents", "Finding", "Labels", "Row", "html", "image_grid"]
