"""What the spectra of one camera have in common, whatever grid they stand on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qlstream.datamodel.qframe import QFrame


class CameraSpectra(ABC):
    """A QFrame or a Frame. A metric that is declared for this type hangs off either, and reads it with `per_bin`."""

    @abstractmethod
    def per_bin(self) -> QFrame:
        """These spectra as counts per bin, each fiber on its own bins; calibrated ones keep their flux density.

        The arrays may be shared: leave them unchanged.
        """
