"""Which alarm each simulated fault raises, and where: `python -m benchmarks.faults`."""
