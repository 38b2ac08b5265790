"""The one place for figures: timing, environment, tables, plots, and files that are never half."""

from eefast.files import whole, write_whole
from eefast.measure.environment import host, processor, versions
from eefast.measure.pieces import Parts, Profile, flops, profile
from eefast.measure.plots import Curve, draw_curves
from eefast.measure.tables import markdown_table, terminal_table
from eefast.measure.timing import Latency, medians, slope, summary, take_turns, time_interleaved

__all__ = [
    "Curve",
    "Latency",
    "Parts",
    "Profile",
    "draw_curves",
    "flops",
    "host",
    "markdown_table",
    "medians",
    "processor",
    "profile",
    "slope",
    "summary",
    "take_turns",
    "terminal_table",
    "time_interleaved",
    "versions",
    "whole",
    "write_whole",
]
