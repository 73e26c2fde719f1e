"""qlstream: real-time quicklook for fiber-fed multi-object spectrographs."""

__version__ = "0.1.0"
