"""How far the pipeline's numbers are from the simulated truth: `python -m benchmarks.truth`, one file per subject."""
