"""eefast's layers against OpenVINO, ONNX Runtime and torch.compile on a CPU. See `__main__`."""

from bench import ROOT

RESULTS = ROOT / "docs" / "cpu_peers.json"
PAGE = ROOT / "docs" / "cpu_peers.md"
LENGTHS = (16, 32, 64, 128, 256)
