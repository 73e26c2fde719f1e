"""Where every kind of file lives: one template per file type (spec paths-and-names §2).

Roots in capitals: RAW, PROD, CAL, QA, TILES. The other fields are defined in `paths.FIELDS`. `{gz}` stands for the
suffix of compressed products.
"""

from __future__ import annotations

_RAW = "{RAW}/{night}/{expid}"
_PREPROC = "{PROD}/preproc/{night}/{expid}"
_EXPOSURE = "{PROD}/exposures/{night}/{expid}"
_NIGHTLY = "{PROD}/calibnight/{night}"
_TILE = "{PROD}/tiles/{group}/{tile}/{subdir}"
_TILE_NIGHT = "{PROD}/tiles/{group}/{tile}/{night}"
_SINGLE = "{PROD}/tiles/perexp/{tile}/{expid}"
_PIX = "{PROD}/{pixgroup}/{survey}/{program}/{pixdir}"
_PIX_TOP = "{PROD}/spectra/{survey}/{program}"
_ZCAT = "{PROD}/zcatalog/{version}"
_QA_EXPOSURE = "{QA}/exposures/{night}/{expid}"
_DASHBOARD = "{PROD}/run/dashboard"

TEMPLATES: dict[str, str] = {
    # raw and tiles
    "raw": f"{_RAW}/desi-{{expid}}.fits.fz",
    "coordinates": f"{_RAW}/coordinates-{{expid}}.fits",
    "fiberassign": f"{_RAW}/fiberassign-{{tile6}}.fits.gz",
    "etc": f"{_RAW}/etc-{{expid}}.json",
    "fiberassignsvn": "{TILES}/{tiledir}/fiberassign-{tile6}.fits.gz",
    "ccd_region_mask": "{CAL}/ccd/ccd-region-mask.csv",
    "flagged_fibers": "{CAL}/ccd/flagged_fibers.ecsv",
    # preproc and exposures
    "fibermap": f"{_PREPROC}/fibermap-{{expid}}.fits",
    "preproc": f"{_PREPROC}/preproc-{{camera}}-{{expid}}.fits{{gz}}",
    "preproc_for_cte": f"{_PREPROC}/ctepreproc-{{camera}}-{{expid}}.fits{{gz}}",
    "preproc_for_dark": "{PROD}/dark_preproc/{night}/{expid}/dark_preproc-{camera}-{expid}.fits",
    "tilepix": f"{_PREPROC}/tilepix-{{tile}}.json",
    **{
        kind: f"{_EXPOSURE}/{kind}-{{camera}}-{{expid}}.fits{{gz}}"
        for kind in ("frame", "sframe", "cframe", "fframe", "sky", "fluxcalib", "calib", "fiberflat", "fiberflatexp")
    },
    **{
        kind: f"{_EXPOSURE}/{kind}-{{camera}}-{{expid}}.fits"
        for kind in ("skycorr", "psf", "qframe", "psfboot", "qsky", "qfframe", "qsframe", "qcframe", "qfiberflat")
    },
    "fitpsf": f"{_EXPOSURE}/fit-psf-{{camera}}-{{expid}}.fits",
    "stdstars": f"{_EXPOSURE}/stdstars-{{spectrograph}}-{{expid}}.fits{{gz}}",
    "calibstars": f"{_EXPOSURE}/calibstars-{{expid}}.csv",
    "exposureqa": f"{_EXPOSURE}/exposure-qa-{{expid}}.fits",
    # nightly calibrations
    "psfbootnight": f"{_NIGHTLY}/psfboot-{{camera}}-{{night}}.fits",
    "psfnight": f"{_NIGHTLY}/psfnight-{{camera}}-{{night}}.fits",
    "fiberflatnight": f"{_NIGHTLY}/fiberflatnight-{{camera}}-{{night}}.fits",
    "biasnight": f"{_NIGHTLY}/biasnight-{{camera}}-{{night}}.fits{{gz}}",
    "darknight": f"{_NIGHTLY}/darknight-{{camera}}-{{night}}.fits{{gz}}",
    "badcolumns": f"{_NIGHTLY}/badcolumns-{{camera}}-{{night}}.csv",
    "badfibers": f"{_NIGHTLY}/badfibers-{{night}}.csv",
    "ctecorrnight": f"{_NIGHTLY}/ctecorr-{{night}}.yaml",
    # by tile
    "zmtl": f"{_TILE_NIGHT}/zmtl-{{spectrograph}}-{{tile}}-{{prefix}}{{night}}.fits",
    "tileqa": f"{_TILE_NIGHT}/tile-qa-{{tile}}-{{prefix}}{{night}}.fits",
    "tileqapng": f"{_TILE_NIGHT}/tile-qa-{{tile}}-{{prefix}}{{night}}.png",
    # by pixel
    "hpixexp": f"{_PIX}/hpixexp-{{survey}}-{{program}}-{{pixel}}.csv",
    "pixexp": f"{_PIX}/pixexp-{{survey}}-{{program}}-{{pixel}}.csv",
    "hpix2upix": f"{_PIX_TOP}/hpix2upix-{{survey}}-{{program}}.fits",
    "hpix2upix_json": f"{_PIX_TOP}/hpix2upix-{{survey}}-{{program}}.json",
    "upix_ntargets": f"{_PIX_TOP}/uniqpix-{{survey}}-{{program}}.fits",
    # top level of a production
    "exposure_table": "{PROD}/exposure_tables/{month}/exposure_table_{night}.csv",
    "override": "{PROD}/exposure_tables/{month}/override_{night}.yaml",
    "processing_table": "{PROD}/processing_tables/processing_table_{specprod}-{night}.csv",
    "unprocessed_table": "{PROD}/processing_tables/unprocessed_table_{specprod}-{night}.csv",
    "exposures": "{PROD}/exposures-{specprod}.fits",
    "exposures_csv": "{PROD}/exposures-{specprod}.csv",
    "tiles": "{PROD}/tiles-{specprod}.fits",
    "tiles_csv": "{PROD}/tiles-{specprod}.csv",
    "zcatalog": "{PROD}/zcatalog-{specprod}.fits",
    "zcat_pix": f"{_ZCAT}{{surveydir}}/zpix-{{survey}}-{{program}}.fits",
    "zcat_tile": f"{_ZCAT}{{surveydir}}/ztile-{{survey}}-{{program}}-{{group}}.fits",
    "zall_pix": f"{_ZCAT}{{zalldir}}/zall-pix-{{specprod}}.fits",
    "zall_tile": f"{_ZCAT}{{zalldir}}/zall-tile{{group}}-{{specprod}}.fits",
    "expinfo": f"{_DASHBOARD}/expjsons/expinfo_{{specprod}}_{{night}}.json",
    "zinfo": f"{_DASHBOARD}/zjsons/zinfo_{{specprod}}_{{night}}.json",
    # QA and quicklook
    "qa_data": f"{_QA_EXPOSURE}/qa-{{camera}}-{{expid}}.yaml",
    "qa_data_exp": f"{_QA_EXPOSURE}/qa-{{expid}}.yaml",
    "qa_calib": "{QA}/calib2d/{night}/qa-{camera}-{expid}.yaml",
    "qa_calib_exp": "{QA}/calib2d/{night}/qa-{expid}.yaml",
    "qa_calib_html": "{QA}/calib2d/qa-calib2d.html",
    "qa_calib_exp_html": "{QA}/calib2d/{night}/qa-{expid}.html",
    "qa_exposures_html": "{QA}/exposures/qa-exposures.html",
    "qa_exposure_html": f"{_QA_EXPOSURE}/qa-{{expid}}.html",
    "qa_toplevel_html": "{QA}/qa-toplevel.html",
    "qa_bootcalib": "{QA}/calib2d/psf/{night}/qa-psfboot-{camera}.pdf",
    "qa_flat_fig": "{QA}/calib2d/{night}/qa-flat-{camera}-{expid}.png",
    **{
        f"qa_{kind}_fig": f"{_QA_EXPOSURE}/qa-{kind}-{{camera}}-{{expid}}.png"
        for kind in ("sky", "skychi", "s2n", "flux")
    },
    "qa_ztruth": "{QA}/exposures/{night}/qa-ztruth-{night}.yaml",
    "qa_ztruth_fig": "{QA}/exposures/{night}/qa-ztruth-{night}.png",
    "ql_file": f"{_EXPOSURE}/ql-qlfile-{{camera}}-{{expid}}.json",
    "ql_fig": f"{_EXPOSURE}/ql-qlfig-{{camera}}-{{expid}}.png",
    "ql_mergedQA_file": f"{_EXPOSURE}/ql-mergedQA-{{camera}}-{{expid}}.json",
    "ql_exposure_plots": f"{_EXPOSURE}/ql-plots-{{expid}}.pdf",
}  # fmt: skip

# Grouped spectra come by tile, by single exposure of a tile, or by pixel; X alone means the one whose inputs are given.
_GROUPED = {
    "spectra": ".fits{gz}",
    "rrdetails": ".h5",
    **dict.fromkeys(("coadd", "redrock", "rrmodel", "qso_mgii", "qso_qn", "emline"), ".fits"),
}
GROUPED = tuple(_GROUPED)
for _kind, _ext in _GROUPED.items():
    TEMPLATES[f"{_kind}_tile"] = f"{_TILE}/{_kind}-{{spectrograph}}-{{tile}}-{{prefix}}{{subdir}}{_ext}"
    TEMPLATES[f"{_kind}_single"] = f"{_SINGLE}/{_kind}-{{spectrograph}}-{{tile}}-exp{{expid}}{_ext}"
    TEMPLATES[f"{_kind}_pix"] = f"{_PIX}/{_kind}-{{survey}}-{{program}}-{{pixel}}{_ext}"

ALIASES = {
    "desi": "raw",
    "ctecorr": "ctecorrnight",
    "exptable": "exposure_table",
    "proctable": "processing_table",
    "unproctable": "unprocessed_table",
    "zpix": "zcat_pix",
    "ztile": "zcat_tile",
    **{f"{kind}_hp": f"{kind}_pix" for kind in GROUPED},
}

HAS_LOG = ("spectra", "coadd", "redrock", "rrdetails", "tileqa", "tileqapng", "zmtl", "qso_qn", "qso_mgii", "emline")
