"""The offline reduction against the simulated truth, and its cost: `python -m benchmarks.offline.truth`, `.speed`."""
