import sys

import numpy as np
import pytest

from qlstream.pipeline.resources import PeakMemory


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's count of the peak is in /proc, on Linux only")
def test_the_peak_counts_what_was_allocated_since_the_reset_and_not_what_is_mapped(tmp_path):
    path = tmp_path / "image.npy"
    np.save(path, np.zeros(50_000_000 // 8))
    memory = PeakMemory()
    memory.reset()
    before = memory.look()

    image = np.load(path, mmap_mode="r")
    assert float(image.sum()) == 0
    mapped = memory.look() - before
    np.ones(80_000_000 // 8).sum()
    allocated = memory.look() - before

    assert mapped < 20
    assert 70 < allocated < 110
