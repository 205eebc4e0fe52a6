"""LCModel's tables become maps: the right values in the right voxels, to the digits that LCModel prints."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.mrsi.discovery import discover
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.lcmodel import Place, parse_table, place_of
from mrsi_fast.mrsi.mapset import MapInputError
from support.data import data_dir
from support.lcmodel_tables import write_run, write_table

SHAPE = (6, 5, 2)  # rows, columns, slices
PLS = np.array([[0, -10, 0, 20], [-10, 0, 0, 25], [0, 0, 12, 0], [0, 0, 0, 1.0]])


def run(seed=0):
    rng = np.random.default_rng(seed)
    conc = {name: rng.uniform(1, 9, SHAPE).astype(np.float32) for name in ("NAA+NAAG", "Cr+PCr", "-CrCH2")}
    percent = {name: rng.integers(2, 40, SHAPE).astype(np.float32) for name in conc}
    conc["NAA+NAAG"][1, 2, 0], percent["NAA+NAAG"][1, 2, 0] = 0.0, 999.0
    return conc, percent, rng.integers(5, 40, SHAPE).astype(np.float32), np.full(SHAPE, 0.054, np.float32)


def grid(affine=PLS, shape=SHAPE):
    return nib.Nifti1Image(np.zeros(shape, np.float32), affine)


@pytest.mark.parametrize("kind", [".table", ".coord", ".csv"])
def test_a_run_gives_its_values_back(tmp_path, kind):
    conc, percent, snr, fwhm = run()
    write_run(tmp_path / "lcm", conc, percent, snr, fwhm, kind)
    maps = read_maps(tmp_path / "lcm", like=grid(), metabolites="tNAA,tCr,-CrCH2")
    assert maps.source == "LCModel tables" and maps.fwhm_unit == "ppm"
    for index, name in enumerate(conc):
        np.testing.assert_allclose(maps.maps[index], conc[name], rtol=0.0051)  # three digits are printed
        np.testing.assert_array_equal(maps.crlb[index], percent[name])
    np.testing.assert_array_equal(maps.affine, PLS)
    assert maps.maps[0, 1, 2, 0] == 0.0 and maps.crlb[0, 1, 2, 0] == 999.0
    if kind == ".csv":
        assert maps.snr is None and maps.fwhm is None
    else:
        np.testing.assert_array_equal(maps.snr[0], snr)
        np.testing.assert_allclose(maps.fwhm[0], fwhm, rtol=1e-6)


@pytest.mark.parametrize("codes", ["PLS", "LPS", "RAS", "LAI", "ARI"])
def test_voxels_keep_their_place_in_the_head_whatever_the_grids_axes(tmp_path, codes):
    conc, percent, snr, fwhm = run()
    write_run(tmp_path / "lcm", conc, percent, snr, fwhm)
    turned = nib.Nifti1Image(np.round(conc["Cr+PCr"], 6), PLS).as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(PLS), nib.orientations.axcodes2ornt(codes))
    )
    maps = read_maps(tmp_path / "lcm", like=turned, metabolites="tCr")
    np.testing.assert_allclose(maps.maps[0], turned.get_fdata(), rtol=0.0051)


def test_the_user_may_say_how_rows_and_columns_count(tmp_path):
    conc, percent, snr, fwhm = run()
    write_run(tmp_path / "lcm", conc, percent, snr, fwhm)
    flipped = read_maps(tmp_path / "lcm", like=grid(), metabolites="tCr", table_axes="ars")
    np.testing.assert_allclose(flipped.maps[0], conc["Cr+PCr"][::-1, ::-1], rtol=0.0051)
    assert not any("taken to count" in text for text in flipped.warnings)
    with pytest.raises(MapInputError, match="give three letters"):
        read_maps(tmp_path / "lcm", like=grid(), table_axes="PLA")


@pytest.mark.parametrize(
    ("name", "place"),
    [("K_01_sl2_3-14.table", Place(2, 3, 14, "K_01")), ("sl2_3-14.coord", Place(2, 3, 14)),
    ("a/sl 2/x.csv", Place(id="x")),
     ("run/sl1/4-5.table", Place(1, 4, 5)), ("P1_row3_col4.table", Place(0, 3, 4, "P1")),
     ("x_7-8.table", Place(0, 7, 8, "x")),
     ("x_slice3.csv", Place(3, 0, 0, "x")), ("notes.table", Place(id="notes"))],
)  # fmt: skip
def test_places_in_names(name, place):
    assert place_of(name) == place


def test_part_of_a_grid_and_voxels_that_were_not_fitted(tmp_path):
    conc, percent, snr, fwhm = run()
    write_run(tmp_path / "lcm", conc, percent, snr, fwhm)
    (tmp_path / "lcm" / "run_sl1_1-1.table").unlink()
    (tmp_path / "lcm" / "run_sl1_1-2.table").write_text("$$ERRORS 1\n FATAL ERROR\n")
    maps = read_maps(tmp_path / "lcm", like=grid(), metabolites="tCr")
    assert np.isnan(maps.maps[0]).sum() == 2 and np.isnan(maps.maps[0, 0, :2, 0]).all()
    assert any("59 of 60 voxels" in text for text in maps.warnings)
    assert any("1 tables hold no concentrations" in text for text in maps.warnings)


def test_odd_lines_of_a_table():
    text = "$$CONC 5 lines in following concentration table = NCONC+1\n Conc. %SD /Cr Metabolite\n"
    text += " 1.00E+03 ***% ******* Ala\n-2.50E-01  12% -3.9E-02 Asp\n 3.1E+00   7%   0.309 GPC+PCh\n"
    text += "broken line\n\n$$MISC\n"
    voxel = parse_table(text, Place())
    assert voxel.values == {"Ala": (1000.0, 999.0), "Asp": (-0.25, 12.0), "tCho": (3.1, 7.0)}


def test_what_does_not_fit_is_refused_in_words(tmp_path):
    conc, percent, snr, fwhm = run()
    write_run(tmp_path / "lcm", conc, percent, snr, fwhm)
    with pytest.raises(MapInputError, match="hold no voxel positions.*--like"):
        read_maps(tmp_path / "lcm")
    with pytest.raises(MapInputError, match="end at row 6 and column 5, but the grid has 60 rows and 50 columns"):
        read_maps(tmp_path / "lcm", like=grid(shape=(60, 50, 2)))
    with pytest.raises(MapInputError, match="column 5 is outside"):
        read_maps(tmp_path / "lcm", like=grid(shape=(6, 4, 2)))
    write_table(tmp_path / "lcm" / "tables" / "run_sl1_1-1.table", {"Cr": 1.0}, {"Cr": 3.0}, 9, 0.05)
    with pytest.raises(MapInputError, match="1 voxels have more than one table, first slice 1 row 1 column 1"):
        read_maps(tmp_path / "lcm", like=grid())
    (tmp_path / "x_sl1.csv").write_text("Row, Col, Cr, Cr %SD\n1, 1, 2.0\n")
    with pytest.raises(MapInputError, match="its line 2 cannot be read"):
        read_maps(tmp_path / "x_sl1.csv", like=grid())


def test_two_runs_in_one_folder_are_two_sets(tmp_path):
    conc, percent, snr, fwhm = run()
    for prefix in ("P07_", "P08_"):
        write_run(tmp_path / "lcm", conc, percent, snr, fwhm, prefix=prefix)
    assert [files.label for files in discover(tmp_path / "lcm")] == ["P07", "P08"]


def test_the_real_scan_from_tables_of_its_layout(tmp_path):
    """K_01 was made from such tables: its values, back in the layout of tables, give its maps."""
    if data_dir() is None:
        pytest.skip("needs the real scan mrsi_oryx2_mit/K_01: set MRSI_FAST_DATA")
    scan = data_dir() / "mrsi_oryx2_mit" / "K_01"

    def load(name):
        return nib.load(scan / f"{name}.nii.gz").get_fdata(dtype=np.float32)

    fitted = {"NAA+NAAG": "NAA-NAAG", "Cr+PCr": "Cr-PCr", "GPC+PCh": "GPC-PCh", "Ins": "Ins", "Glu+Gln": "Glu-Gln"}
    conc = {name: load(f"conc_{file}") for name, file in fitted.items()}
    percent = {name: load(f"crlb_{file}") for name, file in fitted.items()}
    write_run(tmp_path, conc, percent, load("snr"), load("fwhm"), prefix="K_01_")
    maps, wanted = read_maps(tmp_path, like=scan / "conc_Ins.nii.gz"), read_maps(scan)
    assert maps.names == wanted.names
    np.testing.assert_allclose(maps.maps, wanted.maps, rtol=0.0051)
    np.testing.assert_array_equal(maps.crlb, wanted.crlb)
    np.testing.assert_array_equal(maps.snr, wanted.snr)
    np.testing.assert_array_equal(maps.fwhm, wanted.fwhm)
    np.testing.assert_array_equal(maps.affine, wanted.affine)
