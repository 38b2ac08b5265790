"""What nvidia-ml-py knows of a GPU: driver, clocks, power limit, energy. None where it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


class Nvml:
    """The GPU that torch uses, as NVML knows it. Reads only; changes no setting."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        self.missing: str | None = None
        try:
            import pynvml

            pynvml.nvmlInit()
            # torch's number is not NVML's where CUDA_VISIBLE_DEVICES hides some.
            uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
            uuid = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            self._nvml = pynvml
        except Exception as error:  # no package, no library, no permission, MIG
            self.missing = f"{type(error).__name__}: {error}"

    def _read(self, function: str, *arguments: Any) -> Any:
        if self._nvml is None:
            return None
        try:
            return getattr(self._nvml, function)(self._handle, *arguments)
        except Exception:
            return None

    def energy_mj(self) -> int | None:
        """Energy since the driver was loaded, in mJ; it changes about ten times a second."""
        return self._read("nvmlDeviceGetTotalEnergyConsumption")

    def clocks(self) -> dict[str, Any]:
        """What changes while measuring: clocks in MHz, power in mW, temperature in Celsius."""
        return {
            "sm_mhz": self._read("nvmlDeviceGetClockInfo", 1),
            "memory_mhz": self._read("nvmlDeviceGetClockInfo", 2),
            "power_mw": self._read("nvmlDeviceGetPowerUsage"),
            "temperature_c": self._read("nvmlDeviceGetTemperature", 0),
            "throttle_reasons": self._read("nvmlDeviceGetCurrentClocksThrottleReasons"),
        }

    def limits(self) -> dict[str, Any]:
        """What does not change: the driver, the highest clocks in MHz, the power limit in mW."""
        driver = None
        if self._nvml is not None:
            driver = self._nvml.nvmlSystemGetDriverVersion()
        return {
            "driver": driver.decode() if isinstance(driver, bytes) else driver,
            "max_sm_mhz": self._read("nvmlDeviceGetMaxClockInfo", 1),
            "max_memory_mhz": self._read("nvmlDeviceGetMaxClockInfo", 2),
            "power_limit_mw": self._read("nvmlDeviceGetEnforcedPowerLimit"),
            "nvml_missing": self.missing,
        }


def joules_per_call(
    energy_mj: Callable[[], int | None],
    run: Callable[[], int],
    seconds: float,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, float] | None:
    """The energy of a call while calls follow one another, the idle power of the board included.

    Measured from one change of the counter to another, so that its coarse steps do not matter.

    Args:
        energy_mj: the counter.
        run: makes some calls, waits for the GPU, and returns their number.
        seconds: to measure for.
        now: in seconds.

    Returns:
        J per call, W, calls and seconds; None if the counter cannot be read or does not change.
    """
    last, begun = energy_mj(), now()
    if last is None:
        return None
    first: tuple[float, int] | None = None  # time and counter at the first change
    calls = 0
    while now() - begun < 3 * seconds + 1:
        calls += run()
        seen = energy_mj()
        if seen is None:
            return None
        if seen == last:
            continue
        last, at = seen, now()
        if first is None:
            first, calls = (at, seen), 0
        elif at - first[0] >= seconds:
            joules, took = (seen - first[1]) / 1e3, at - first[0]
            return {"j": joules / calls, "w": joules / took, "calls": calls, "s": took}
    return None
