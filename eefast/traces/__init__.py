"""Exit traces: recorded once, and every policy judged on them without running a model."""

from eefast.traces.cached import cached_trace
from eefast.traces.oracle import oracle
from eefast.traces.record import keepable, record_trace
from eefast.traces.simulate import Simulation, simulate, simulate_all
from eefast.traces.trace import ExitTrace
from eefast.traces.trade_off import TradeOffPoint, pareto_front, trade_off

__all__ = [
    "ExitTrace",
    "Simulation",
    "TradeOffPoint",
    "cached_trace",
    "keepable",
    "oracle",
    "pareto_front",
    "record_trace",
    "simulate",
    "simulate_all",
    "trade_off",
]
