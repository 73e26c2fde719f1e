"""The nights of the fault table: one without faults, and three that share all faults among them.

Where two faults of a night strike the same camera and exposure, each explains its own alarms.
"""

NIGHTS: dict[str, tuple[str, ...]] = {
    "healthy": (),
    "detectors and optics": (
        "noisy-amp:r0:B",
        "dead-amp:b1:C",
        "bias-jump:z2:A",
        "pickup:b3:D",
        "swapped-amps:b2:AB",
        "warm-ccd:z5",
        "no-readout:b6@2",
        "cosmic-storm:r7",
        "out-of-focus:b8",
        "shifted-traces:r9",
        "light-leak:z3@3",
    ),
    "lamps, fibers and sky": (
        "dead-lamp:Ne@5",
        "dim-lamp:z1@4",
        "dim-lamp:r1@7",
        "lamp-off:b0@8",
        "mispositioned:r2:0-9@11",
        "closed-shutter:z4@11",
        "dead-fibers:b5:3,7-9",
        "dim-fibers:z6:10-14",
        "clouds@10",
        "moonlit@9",
        "short-exposure@12",
        "missing-fibermap@13",
    ),
    "files": (
        "missing-camera:b0@2",
        "missing-keyword:r0@3",
        "truncated:b2@4",
        "corrupt-hdu:z3@6",
    ),
}
