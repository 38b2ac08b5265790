"""What eefast costs and gains on a CUDA machine, measured: `python -m bench.gpu --out DIR`."""
