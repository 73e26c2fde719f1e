"""What each number means, in plain words: what it measures, what to do when it is out of range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Entry:
    """Help for one result key.

    Attributes
    ----------
    title : a few words, to be followed by a camera ("read noise of r3")
    what : what it measures
    act : what to do when it is out of range
    group : where it stands on the page
    """

    title: str
    what: str
    act: str
    group: str


GROUPS = ("File", "CCD", "Optics", "Fibers", "Sky and depth", "Other")

_FILE, _CCD, _OPTICS, _FIBERS, _SKY, _OTHER = GROUPS

_ENTRIES: dict[str, Entry] = {
    "CHECKHDUS": Entry(
        "problems of the file",
        "Missing header cards and readout windows that do not fit, counted.",
        "Open the camera and read the summary; the readout software wrote something unusual.",
        _FILE,
    ),
    "CHECKHDUS_STATUS": Entry(
        "header and layout",
        "How bad the worst problem of header and readout is: 0 none, 20 a warning, 30 an alarm.",
        "The sentence names the card or section. Missing or contradicting cards come from the readout software.",
        _FILE,
    ),
    "EXPNUM_STATUS": Entry(
        "identity of the exposure",
        "How badly header and file name disagree on number, night, camera and kind: 0 not at all, 20, or 30.",
        "The file may stand in another exposure's place; do not process it further before this is clear.",
        _FILE,
    ),
    "MISSINGCAMERAS": Entry(
        "missing cameras",
        "Cameras that the exposure header promises and the file does not have.",
        "The exposure's page names them; check the readout of these cameras.",
        _FILE,
    ),
    "CCDTEMP": Entry(
        "CCD temperature",
        "Temperature of the CCD by its own sensor.",
        "A warm CCD has dark current and hot pixels: check cryostat and vacuum before you go on.",
        _FILE,
    ),
    "CRYOTEMP": Entry(
        "cryostat temperature", "Temperature of the cold head.", "Rising: tell the cryostat's keepers at once.", _FILE
    ),
    "CRYOPRES": Entry(
        "cryostat pressure", "Pressure in the cryostat.", "Rising: the vacuum leaks; the CCD will warm up.", _FILE
    ),
    "VCCDSEC": Entry(
        "time since the CCD was switched on",
        "How long the CCD has had its voltage.",
        "Within the first half hour bias and dark current still settle; take calibrations later.",
        _FILE,
    ),
    "MISSINGKEYS": Entry(
        "missing header cards", "Header cards that ought to be there and are not.", "Tell the instrument team.", _FILE
    ),
    "EXPTIME_FRACTION": Entry(
        "exposed / requested time",
        "Time the shutter was open over the time asked for.",
        "If it is far from 1, the exposure was stopped early or ran on; decide whether to repeat it.",
        _FILE,
    ),
    "FLATPIXELS": Entry(
        "pixels of one value",
        "Fraction of pixels that hold the commonest value; near 1 means that the CCD was not read out.",
        "Repeat the exposure; if it stays, restart the camera's readout.",
        _FILE,
    ),
    "BIAS_AMP": Entry(
        "bias level",
        "Mean signal of the overscan columns: the electronic zero point of each amplifier.",
        "A jump points to the readout electronics; look at the same amplifier in earlier exposures.",
        _CCD,
    ),
    "BIAS_STEP_AMP": Entry(
        "bias step",
        "Largest jump of the bias level between rows of one readout.",
        "Look at the image for bands; if it repeats, power-cycle the readout.",
        _CCD,
    ),
    "BIAS_DRIFT_AMP": Entry(
        "bias drift",
        "Highest less lowest bias level among blocks of rows of one readout.",
        "It is subtracted row by row only where it steps; look at the image for a gradient.",
        _CCD,
    ),
    "NOISE_AMP": Entry(
        "read noise",
        "Scatter of the overscan pixels of each amplifier: noise added by reading out.",
        "One noisy amplifier costs faint targets on a quarter of the CCD. Check cables and grounding.",
        _CCD,
    ),
    "NOISE_OVERSCAN_AMP": Entry(
        "noise of the overscan alone",
        "Scatter of the overscan pixels without the bias image.",
        "Well below the read noise: the bias image is noisy.",
        _CCD,
    ),
    "READNOISE_RATIO": Entry(
        "read noise / expected",
        "Measured read noise over the one in header or calibration.",
        "Far from 1: the amplifier changed, or the calibration is of another setting.",
        _CCD,
    ),
    "NOISE_TAILS": Entry(
        "tails of the noise",
        "How wide the outer noise is for its core; 1 is Gaussian.",
        "Above 1: spikes, pick-up or an amplifier that flickers between levels.",
        _CCD,
    ),
    "DIFF1SIG": Entry("width of 68 % of the overscan", "Two sigma of Gaussian noise.", "", _CCD),
    "DIFF2SIG": Entry("width of 95 % of the overscan", "Four sigma of Gaussian noise.", "", _CCD),
    "DIFF3SIG": Entry("width of 99.7 % of the overscan", "Six sigma of Gaussian noise.", "", _CCD),
    "DATA5SIG": Entry("very low pixels", "Overscan pixels more than 5 sigma low, counted.", "", _CCD),
    "BIAS_COLNOISE": Entry(
        "column pattern noise",
        "Scatter of column levels of the overscan beyond the read noise.",
        "Look for stripes along columns, and for what was switched on.",
        _CCD,
    ),
    "CORR_MAX_AMP": Entry(
        "correlation of pixels",
        "Largest correlation of the noise of pixels up to 3 pixels apart, on bias frames.",
        "A few percent: pick-up, or a readout that does not settle between pixels. Errors of spectra are then wrong.",
        _CCD,
    ),
    "DARKLEVEL_AMP": Entry(
        "level in the dark",
        "Median signal of a bias or dark frame after all subtractions; 0 is right.",
        "On a dark: warm CCD or a light leak; look at the image. On a bias frame: the bias image is out of date.",
        _CCD,
    ),
    "BBKGMIN_AMP": Entry("least light between fibers", "Lowest background between the fiber blocks.", "", _CCD),
    "BBKGMAX_AMP": Entry(
        "most light between fibers", "Highest background between the fiber blocks: scattered light.", "", _CCD
    ),
    "BIAS_PATNOISE": Entry(
        "row pattern noise",
        "Scatter of row levels beyond the read noise: pick-up from other electronics.",
        "Look for stripes in the image and for what was switched on.",
        _CCD,
    ),
    "LOW5SIG_AMP": Entry(
        "very low pixels", "Overscan pixels more than 5 sigma low, per million.", "Spikes in the readout.", _CCD
    ),
    "LITFRAC_AMP": Entry(
        "lit pixels",
        "Fraction of pixels well above the read noise: many on lamps, next to none on bias and dark.",
        "Too few on a lamp exposure: lamp off or shutter closed. Too many on a dark: light leak.",
        _CCD,
    ),
    "LITRATIO_AMP": Entry(
        "lit pixels / other amplifiers",
        "Lit pixels of an amplifier, over those of the camera's median amplifier.",
        "Near 0: the amplifier reads out, but sees no light. Check its signal chain.",
        _CCD,
    ),
    "SATFRAC_AMP": Entry(
        "saturated pixels",
        "Fraction of pixels at the limit of the amplifier.",
        "A bright star, a lamp too bright, or a wrong exposure time.",
        _CCD,
    ),
    "MASKFRAC_AMP": Entry(
        "masked pixels",
        "Fraction of pixels that are not used: bad, saturated, hit by cosmic rays.",
        "If an amplifier is mostly masked its fibers are lost; see the mask on the camera page.",
        _CCD,
    ),
    "COSMICS_RATE": Entry(
        "cosmic-ray tracks",
        "Tracks per minute of exposure and readout.",
        "A steep rise is a light leak or noise.",
        _CCD,
    ),
    "XSIGMA": Entry(
        "spot width across",
        "Median sigma of the spots across the dispersion.",
        "If it grows in every camera of an arm, check focus and temperature.",
        _OPTICS,
    ),
    "WSIGMA": Entry(
        "spot width along wavelength",
        "Median sigma of the spots along the dispersion: the resolution.",
        "If it grows, check focus and temperature of the spectrograph.",
        _OPTICS,
    ),
    "XSIGMA_RATIO": Entry(
        "spot width across / calibration",
        "Median sigma of the spots across the dispersion, over that of the calibration; 1 is as sharp as then.",
        "Well above 1 in every camera of an arm: out of focus. Check focus and temperature.",
        _OPTICS,
    ),
    "WSIGMA_RATIO": Entry(
        "spot width along / calibration",
        "Median sigma of the spots along the dispersion, over that of the calibration; 1 is as sharp as then.",
        "Well above 1: out of focus. Check focus and temperature of the spectrograph.",
        _OPTICS,
    ),
    "NPOINTS": Entry("measured spots", "Spots that the widths stand on.", "", _OPTICS),
    "NPOINTSX": Entry("points across", "Measurements that the shift across stands on.", "", _OPTICS),
    "NPOINTSY": Entry("points in wavelength", "Measurements that the shift in wavelength stands on.", "", _OPTICS),
    "XYSHIFTS_X": Entry(
        "spectra moved across",
        "Mean shift of the traces across the CCD, against the calibration.",
        "It is corrected; a large one asks for new arcs and flats.",
        _OPTICS,
    ),
    "XYSHIFTS_Y": Entry(
        "spectra moved along",
        "Mean shift of the lines along the CCD, against the calibration.",
        "It is corrected; a large one asks for new arcs.",
        _OPTICS,
    ),
    "SPREADDX": Entry(
        "uneven shift across", "Largest less smallest shift over the CCD.", "Take new arcs and flats.", _OPTICS
    ),
    "SPREADDY": Entry("uneven shift along", "Largest less smallest shift over the CCD.", "Take new arcs.", _OPTICS),
    "MINDX": Entry("least shift across", "Smallest shift of the traces across the CCD.", "", _OPTICS),
    "MAXDX": Entry("largest shift across", "Largest shift of the traces across the CCD.", "", _OPTICS),
    "MINDY": Entry("least shift along", "Smallest shift of the lines along the CCD.", "", _OPTICS),
    "MAXDY": Entry("largest shift along", "Largest shift of the lines along the CCD.", "", _OPTICS),
    "SLOPEDX_X": Entry("shift across, by fiber", "Change of the shift from the first to the last fiber.", "", _OPTICS),
    "SLOPEDX_Y": Entry("shift across, by wavelength", "Change of the shift from blue to red.", "", _OPTICS),
    "SLOPEDY_X": Entry("shift along, by fiber", "Change of the shift from the first to the last fiber.", "", _OPTICS),
    "SLOPEDY_Y": Entry("shift along, by wavelength", "Change of the shift from blue to red.", "", _OPTICS),
    "ERRORDX": Entry("error of the shift across", "Standard error of the mean shift.", "", _OPTICS),
    "ERRORDY": Entry("error of the shift along", "Standard error of the mean shift.", "", _OPTICS),
    "RMSDX": Entry("scatter of shifts across", "How well the measured shifts agree with the fit.", "", _OPTICS),
    "RMSDY": Entry("scatter of shifts along", "How well the measured shifts agree with the fit.", "", _OPTICS),
    "CHECKARC": Entry(
        "fibers with a resolution", "Fibers with enough arc lines to tell their resolution.", "", _OPTICS
    ),
    "CHECKARC_FRACTION": Entry(
        "fibers with a resolution",
        "Fraction of the fibers in use whose resolution their own arc lines tell; the rest take their neighbours'.",
        "Too few: are the lamps on? Dark fibers side by side: a bundle or slit problem.",
        _OPTICS,
    ),
    "YSIGMA": Entry("width of the arc lines", "Median sigma of the arc lines along the dispersion.", "", _OPTICS),
    "YSIGMA_RATIO": Entry(
        "width of the arc lines / calibration",
        "Median sigma of the arc lines over that of the calibration; 1 is as sharp as then.",
        "Well above 1: out of focus. Check focus and temperature of the spectrograph.",
        _OPTICS,
    ),
    "YSIGMA_RATIO_LOW": Entry(
        "sharpest end / calibration",
        "The same at the wavelength where it is smallest.",
        "Far from the other end: the focus is tilted along wavelength.",
        _OPTICS,
    ),
    "YSIGMA_RATIO_HIGH": Entry(
        "least sharp end / calibration",
        "The same at the wavelength where it is largest.",
        "Far from the other end: the focus is tilted along wavelength.",
        _OPTICS,
    ),
    "YSIGMA_OUTLIERS": Entry(
        "fibers less sharp than others",
        "Fraction of the fibers whose lines are more than 10 % wider or narrower than those of the others.",
        "See which fibers on the camera page: side by side, a bundle moved in the slit.",
        _OPTICS,
    ),
    "RESOLVING_POWER": Entry(
        "resolving power", "Wavelength over the full width of a line at half maximum.", "", _OPTICS
    ),
    "CHI2_WIDTHS": Entry(
        "chi2 of the line widths",
        "How well the widths follow a smooth function of wavelength, in units of their errors; 1 is perfect.",
        "Well above 1: unknown lines blend with those of the table, or the fibers are badly extracted.",
        _OPTICS,
    ),
    "NLINES": Entry(
        "arc lines per fiber",
        "Median number of lines that the resolution of a fiber stands on.",
        "Few: is a lamp off, or the exposure short?",
        _OPTICS,
    ),
    "LAMP_LEVEL": Entry(
        "brightness of the arc lamps",
        "Light per second in the lines of the lamps that are on, over the strength of the lines.",
        "Low: lamps old or not warmed up, screen not in place. 0: lamps off. Repeat the arc.",
        _OPTICS,
    ),
    **{
        f"LAMP_{symbol}": Entry(
            f"{element} lamp / other lamps",
            f"Brightness of the {element} lamp over that of the typical lamp.",
            "Near 0: this lamp is off. Switch it on and repeat the arc.",
            _OPTICS,
        )
        for symbol, element in (
            ("HG", "mercury"),
            ("CD", "cadmium"),
            ("NE", "neon"),
            ("AR", "argon"),
            ("KR", "krypton"),
            ("XE", "xenon"),
        )
    },
    "NGOODFIB": Entry("fibers with light", "Fibers with a significant signal.", "", _FIBERS),
    "NMISSINGFIB": Entry("dark fibers", "Fibers that ought to have light and have none.", "", _FIBERS),
    "NKNOWNBROKEN": Entry("known broken fibers", "Fibers that nobody expects to have light.", "", _FIBERS),
    "INTEG_RAW_FLUX": Entry(
        "total counts of a fiber", "Counts in the standard range of the arm, of the median fiber.", "", _FIBERS
    ),
    "MEDIAN_RAW_FLUX": Entry(
        "median counts of a fiber", "Median counts per Angstrom in the standard range of the arm.", "", _FIBERS
    ),
    "MEDIAN_RAW_SNR": Entry("S/N of a fiber with sky", "Median S/N of the counts, sky included.", "", _FIBERS),
    "OFFSET_RMS": Entry(
        "fiber offsets, rms", "Distance of the fibers from their places, root mean square.", "", _FIBERS
    ),
    "OFFSET_MEDIAN": Entry(
        "fiber offset",
        "Median distance of the fibers of the petal from their places.",
        "The whole petal is off: check field rotation, guiding, and whether the last positioner move was made.",
        _FIBERS,
    ),
    "POORPOS_FRACTION": Entry("poorly placed fibers", "Fraction of fibers more than 30 micron off.", "", _FIBERS),
    "BADPOS_FRACTION": Entry(
        "badly placed fibers",
        "Fraction of the fibers more than 100 micron off their places, or without a measured place.",
        "Check the positioner moves and the fiber view camera.",
        _FIBERS,
    ),
    "NGOODPOS": Entry("well-placed fibers", "Assigned fibers within 30 micron of their places.", "", _FIBERS),
    "NPOORPOS": Entry("misplaced fibers", "Assigned fibers more than 30 micron off, or flagged so.", "", _FIBERS),
    "NOFFTARGET": Entry(
        "fibers off their targets",
        "Fibers that stand beside their targets, by their coordinates or because the light is missing.",
        "Check the positioner moves of this petal and the tile; the summary names the fibers.",
        _FIBERS,
    ),
    "NLOST": Entry(
        "targets without their light",
        "Targets bright enough to tell that show less than 70 % of the light that the imaging promises.",
        "Fibers off their targets: check the positioner moves, the guiding and the tile.",
        _FIBERS,
    ),
    "GOODFIB_FRACTION": Entry(
        "fibers with light",
        "Fraction of the fibers in use that show a significant signal.",
        "Dark fibers side by side: a bundle or slit problem. All dark: lamp, shutter or petal.",
        _FIBERS,
    ),
    "CHECKFLAT": Entry(
        "fiber flat",
        "Mean of the fiber flat over the fibers: 1 if they are like each other, whatever the lamp does.",
        "Look at the flat of each fiber: which ones stand out?",
        _FIBERS,
    ),
    "DEADFIB_FRACTION": Entry(
        "fibers without a flat",
        "Fraction of the fibers in use that brought no lamp light, so that they have no flat.",
        "Dark fibers side by side: a bundle or slit problem. All dark: lamp, shutter or petal.",
        _FIBERS,
    ),
    "DIMFIB_FRACTION": Entry(
        "dim fibers",
        "Fraction of the fibers in use with less than half the lamp light of the median fiber.",
        "If they were fine the night before, a connector or the slit may be dirty; tell the instrument team.",
        _FIBERS,
    ),
    "FLATRATIO_NMAD": Entry(
        "fibers against the flat before",
        "Scatter of the fibers' throughputs over those of the flat that served so far.",
        "A large scatter: another lamp set-up or positioners elsewhere. Do not use this flat before you know.",
        _FIBERS,
    ),
    "CHANGEDFIB_FRACTION": Entry(
        "changed fibers",
        "Fraction of the fibers whose throughput differs by more than a tenth from the flat that served so far.",
        "Fibers side by side: a bundle. Single ones: their positioners or connectors.",
        _FIBERS,
    ),
    "FLATLAMP_RATE": Entry(
        "flat lamp",
        "Light of the flat lamp in the median fiber, per second and Angstrom.",
        "Too little: lamp off, dim or not warm, screen or shutter in the way. Compare the other arms and petals.",
        _FIBERS,
    ),
    "INTEG_FLUX": Entry(
        "flat lamp, whole arm",
        "Light of the flat lamp in the middle fibers, summed over the arm's wavelengths, per second.",
        "One petal alone: its fibers or spectrograph. All petals: the lamp.",
        _FIBERS,
    ),
    "FLUXLEVEL": Entry(
        "light level",
        "Median counts per row of the spectra.",
        "Low on a flat or arc: is the lamp on, the screen in place, the shutter open? Repeat it before using it.",
        _FIBERS,
    ),
    "MASKEDROWS": Entry(
        "rows without information",
        "Fraction of the rows of the spectra that masked pixels took away.",
        "See the mask on the camera page.",
        _FIBERS,
    ),
    "SKYCONT": Entry(
        "sky level",
        "Sky continuum between its lines, in the sky fibers.",
        "Moon, twilight, clouds or a light leak.",
        _SKY,
    ),
    "SKYCONT_RATE": Entry(
        "sky brightness",
        "Sky continuum per second, between its lines, in the sky fibers.",
        "Moon, twilight, clouds lit from below, or a light leak. Consider the bright program.",
        _SKY,
    ),
    "SKYCONT_SPREAD": Entry(
        "uneven sky", "Scatter of the sky level from fiber to fiber.", "Scattered light or a wrong flat.", _SKY
    ),
    "RESIDNOISE": Entry(
        "sky residuals",
        "Scatter of what the sky subtraction leaves in sky fibers, in units of the errors; 1 is perfect.",
        "Well above 1: the sky was not subtracted well, or the errors are too small.",
        _SKY,
    ),
    "SKYCHI2": Entry(
        "sky chi2 / dof",
        "Mean square of what the sky subtraction leaves, in units of the errors; 1 is perfect.",
        "Well above 1: a bad fiber flat, shifted lines, or sky fibers that hit a star.",
        _SKY,
    ),
    "SKYCHI2_LINES": Entry(
        "sky chi2 on bright lines", "The same on the bright sky lines.", "Wavelengths moved: see the shifts.", _SKY
    ),
    "FIDSNR": Entry(
        "signal to noise",
        "S/N per row at the fiducial magnitude, from a fit over all targets.",
        "Low: clouds, seeing, fibers off their targets. Check guiding and the depth of the exposure.",
        _SKY,
    ),
    "FIDSNR_TGT": Entry(
        "signal to noise by class",
        "S/N per row at the fiducial magnitude, for each class of target.",
        "Low: clouds, seeing, fibers off their targets. Check guiding and the depth of the exposure.",
        _SKY,
    ),
    "FIDSNR_1000S": Entry(
        "signal to noise in 1000 s",
        "S/N per row at the fiducial magnitude, scaled to an exposure of 1000 s.",
        "Low: clouds, seeing, moon, or fibers off their targets. Check guiding; expose longer.",
        _SKY,
    ),
    "LOST_FRACTION": Entry(
        "fraction without their light",
        "Fraction of the targets bright enough to tell that show less than 70 % of the light the imaging promises.",
        "Fibers off their targets: check the positioner moves, the guiding and the tile.",
        _SKY,
    ),
    "FIDSNR_ERROR_TGT": Entry("error of S/N by class", "Standard error of the S/N of each class.", "", _SKY),
    "NTARGETS": Entry("targets", "Targets with imaging in this arm's band that were used.", "", _SKY),
    "PEAKCOUNT": Entry(
        "sky lines",
        "Light of the brightest sky lines in the sky fibers, per second and line, without the continuum.",
        "None: shutter closed or wrong traces. The lines themselves vary by half in a night.",
        _SKY,
    ),
    "PEAKCOUNT_NOISE": Entry("scatter of sky lines", "Standard deviation of the sky lines over fibers.", "", _SKY),
    "PEAKCOUNT_SPREAD": Entry(
        "uneven sky lines",
        "Scatter of the sky lines from fiber to fiber, over their mean.",
        "A wrong fiber flat, or spectra that moved out of their windows: see the shifts.",
        _SKY,
    ),
    "SKYRBAND": Entry(
        "sky magnitude in r",
        "Surface brightness of the sky in r, in AB magnitudes per square arcsecond; dark skies have about 20.8.",
        "Bright: moon, twilight, clouds lit from below, or a light leak. Consider another program.",
        _SKY,
    ),
    "SKY_MAG_G": Entry(
        "sky magnitude in g",
        "Surface brightness of the sky in g, in AB magnitudes per square arcsecond; the moon shows here first.",
        "Bright: moon, twilight, clouds lit from below, or a light leak. Consider another program.",
        _SKY,
    ),
    "SKY_MAG_R": Entry("sky magnitude in r", "Surface brightness of the sky in r, as SKYRBAND.", "", _SKY),
    "SKY_MAG_Z": Entry(
        "sky magnitude in z",
        "Surface brightness of the sky in z, in AB magnitudes per square arcsecond; its OH lines vary.",
        "Far off: a light leak, or a wrong flux calibration.",
        _SKY,
    ),
    "RESIDNOISE_LINES": Entry("sky residuals on lines", "The scatter on the bright sky lines.", "", _SKY),
    "RESIDNOISE_CONT": Entry("sky residuals between lines", "The scatter between the bright sky lines.", "", _SKY),
    "SKYCHI2_CONT": Entry("sky chi2 between lines", "The same between the bright sky lines.", "", _SKY),
    "RESID_LOW": Entry("low sky residuals", "Lower end of the central 95 % of the residuals.", "", _SKY),
    "RESID_HIGH": Entry("high sky residuals", "Upper end of the central 95 % of the residuals.", "", _SKY),
    "TSNR2": Entry(
        "template (S/N)^2", "What the exposure tells of a typical target of each class, summed over the arm.", "", _SKY
    ),
    "TSNR2_NOMINAL": Entry("nominal (S/N)^2", "The same after 1000 s of nominal conditions.", "", _SKY),
    "EFFTIME": Entry(
        "effective time",
        "Seconds of nominal conditions (dark, zenith, clear) that would tell as much as this exposure, by this arm.",
        "Compare it with the goal of the tile.",
        _SKY,
    ),
    "EFFTIME_TGT": Entry("effective time by class", "The same for each class of target.", "", _SKY),
    "SPEED": Entry(
        "survey speed",
        "Effective time over exposure time: 1 in nominal conditions.",
        "Low: clouds, seeing, moon, high airmass. Expose longer, or change the program.",
        _SKY,
    ),
    "EFFTIME_FRACTION": Entry(
        "effective time / goal",
        "Effective time of this exposure over the goal time of its tile.",
        "If it is small and the tile is not to be continued, expose longer.",
        _SKY,
    ),
    "LOWEFFTIME_FRACTION": Entry(
        "slow fibers",
        "Fraction of the fibers that gain less than half of the median effective time.",
        "Low throughput, or a noisy amplifier below them.",
        _SKY,
    ),
    "TRANSPARENCY": Entry(
        "transparency",
        "Light of stars and quasars over what imaging and calibration promise for this airmass and seeing.",
        "Low in all cameras: clouds. Low in one petal: positioning.",
        _SKY,
    ),
    "STARRMS": Entry(
        "scatter of standard stars",
        "Scatter of the standard stars' flux against the imaging.",
        "One star off its fiber is enough: look at the positions.",
        _SKY,
    ),
    "NSTDSTAR": Entry(
        "standard stars", "Standard stars that can be used.", "With fewer than three the calibration suffers.", _SKY
    ),
    "THRU_MEDIAN": Entry(
        "throughput",
        "Fraction of the photons above the atmosphere that become electrons, of stars and quasars, with all losses.",
        "Low in all cameras: clouds or the mirror. Low in one: fibers or the camera.",
        _SKY,
    ),
    "INTEG_CALIB_FLUX": Entry("total flux of a fiber", "Flux in the standard range of the arm.", "", _SKY),
    "MEDIAN_CALIB_FLUX": Entry("median flux of a fiber", "Median flux in the standard range of the arm.", "", _SKY),
    "MEDIAN_CALIB_SNR": Entry("S/N of a fiber", "Median S/N of the calibrated flux.", "", _SKY),
    "FIDSNR_ERROR": Entry("error of signal to noise", "Standard error of the S/N from the fit.", "", _SKY),
    "NUM_NEGATIVE_SNR": Entry("targets without signal", "Targets with a median S/N of zero or less.", "", _SKY),
    "NSKY_FIB": Entry("sky fibers", "Sky fibers that were used.", "", _SKY),
    "NBAD_PCHI": Entry("bad sky fibers", "Sky fibers whose residuals are improbably large.", "", _SKY),
    "RESID": Entry("median sky residual", "Median of what the sky subtraction leaves in sky fibers.", "", _SKY),
    "NFIBNOTGT": Entry("targets without flux", "Targets whose spectrum has no positive flux.", "", _SKY),
    "DELTAMAG_MEDIAN": Entry(
        "flux against imaging",
        "Magnitudes of stars and quasars from the spectra less those of the imaging; 0 if all light arrives.",
        "Large in all cameras: clouds. Large in one petal: positioning.",
        _SKY,
    ),
    "DELTAMAG_TGT": Entry(
        "flux against imaging by class", "The same for each class of target.", "Clouds or positioning.", _SKY
    ),
}

_GROUP_OF_RESULT = {
    "Check_HDUs": _FILE,
    "Bias_From_Overscan": _CCD,
    "Get_RMS": _CCD,
    "Count_Pixels": _CCD,
    "Count_Cosmics": _CCD,
    "Pixel_Correlation": _CCD,
    "Check_Background": _CCD,
    "Calc_XWSigma": _OPTICS,
    "Trace_Shifts": _OPTICS,
    "Check_Resolution": _OPTICS,
    "Arc_Lines": _OPTICS,
    "CountSpectralBins": _FIBERS,
    "TopHat_Raw": _FIBERS,
    "Fiber_Positions": _FIBERS,
    "Check_FiberFlat": _FIBERS,
    "Sky_Continuum": _SKY,
    "Sky_Peaks": _SKY,
    "Sky_Rband": _SKY,
    "Sky_Residual": _SKY,
    "Calculate_SNR": _SKY,
    "Integrate_Spec": _SKY,
    "Effective_Time": _SKY,
    "TopHat_Calib": _SKY,
}


_PLACES = {name: n for n, name in enumerate(_ENTRIES)}
_of_the_site: dict[str, Entry] = {}  # this process serves the pages of one site


def add_words(entries: Mapping[str, Entry]) -> None:
    """Let a site's own words count, before ours where both have some."""
    _of_the_site.update(entries)


def explain(metric: str, result: str = "") -> Entry:
    """The help of a result key; for one that nobody has words for, its name under the group of its metric."""
    if metric in _of_the_site:
        return _of_the_site[metric]
    if metric in _ENTRIES:
        return _ENTRIES[metric]
    if metric.removesuffix("_AMP") in _ENTRIES:
        entry = _ENTRIES[metric.removesuffix("_AMP")]
        return replace(entry, title=f"{entry.title} by amplifier")
    plain = metric.removesuffix("_AMP").replace("_", " ").lower()
    title = f"{plain} by amplifier" if metric.endswith("_AMP") else plain
    return Entry(title, f"A result of {result or metric}.", "", _GROUP_OF_RESULT.get(result, _OTHER))


def place_of(metric: str) -> int:
    """Where a result key stands in the glossary, which goes from the file over the CCD to the sky, causes first."""
    name = metric if metric in _ENTRIES else metric.removesuffix("_AMP")
    return _PLACES.get(name, len(_PLACES))
