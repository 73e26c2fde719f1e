"""What stands in for specter, in whose objects desispec keeps its traces: it is on no package index."""

# for the front of a program that imports desispec
STAND_IN = """
import importlib.util, sys, unittest.mock, warnings
warnings.simplefilter("ignore")
import numpy as np
if importlib.util.find_spec("specter") is None:
    class TraceSet:
        def __init__(self, coeff, *args, **kwargs):
            self._coeff = np.asarray(coeff)
    for name in ("specter", "specter.psf", "specter.psf.gausshermite", "specter.util", "specter.util.traceset",
                 "specter.extract", "specter.extract.ex2d"):
        sys.modules[name] = unittest.mock.MagicMock()
    sys.modules["specter.util.traceset"].TraceSet = TraceSet
"""
