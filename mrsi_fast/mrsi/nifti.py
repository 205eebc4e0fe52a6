"""One NIfTI image in, safely: each way it can be bad ends in one sentence (`MapInputError`), before memory is spent.

nibabel reads headers and applies scaling; this module adds what it leaves to the caller: limits checked against the
header before the data are touched, the gzip checksum (nibabel stops reading before it), orientation that is finite and
unambiguous, spatial units, and a refusal of what is not a map of real numbers (spectra, colours).
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

import nibabel as nib
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from mrsi_fast.mrsi.geometry import (
    SHEAR_TOLERANCE,
    check_affine,
    fov_corner_difference_mm,
    shear_cosine,
    voxel_sizes_mm,
)
from mrsi_fast.mrsi.mapset import Float32, MapInputError

Form = Literal["auto", "s", "q"]

MAX_VALUES = 2**27
"""Most values one image may hold (512 x 512 x 512): far above any MRSI map, and 0.5 GiB in float32."""

MAX_MAP_VALUES = 2**24
"""Most values that a metabolite map, or a stack of them, may hold (256 x 256 x 256): the largest published whole-brain
maps have a tenth of that. Anatomical images and masks may be larger."""

MAX_OFFSET_BYTES = 2**24
"""Most bytes before the data (header extensions) or after them; a NIfTI-MRS extension has a few kB."""

SAME_PLACE_MM = 0.05
"""Two affines that place the FOV corners this close are the same grid (qforms are stored in float32 quaternions)."""

_PLAUSIBLE_VOXEL_MM = (0.05, 200.0)
_TO_MM = {1: 1000.0, 2: 1.0, 3: 1e-3}
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_ECODE_NIFTI_MRS = 44
_AGAIN = "Copy or export the file again."
_FIT = "Fit it first, e.g. with fsl_mrsi, LCModel or Osprey, and give the fitted maps."


@dataclass(frozen=True, eq=False)
class Volume:
    """One image as read: values, place, remarks.

    Attributes:
        data: [N, X, Y, Z] float32; N is 1 for an ordinary map and the number of maps of a stack.
        affine: [4, 4] float64, mm.
        xform_code: NIfTI code of the form the affine came from, 1 where there was none.
        remarks: Sentences without the file's name, for the caller to put in front.
        placed: Whether the file has a position in the head (sform or qform).
    """

    data: Float32
    affine: NDArray[np.float64]
    xform_code: int
    remarks: tuple[str, ...]
    placed: bool = True


def read_nifti(path: str | Path, form: Form = "auto", max_values: int = MAX_VALUES) -> Volume:
    """Read one ``.nii`` or ``.nii.gz`` file to its last byte.

    Args:
        path: The file.
        form: Which orientation to take: ``auto`` (sform, else qform, as FSL and nibabel do), ``s`` or ``q``.
        max_values: Largest number of values accepted, checked before the data are read.

    Returns:
        The volume; further axes than three are joined to N in Fortran order (the NIfTI order of maps in a stack).

    Raises:
        MapInputError: Anything that keeps the file from being used, named in the message.
    """
    path = Path(path)
    with _one_error(path.name), LoggingOutputSuppressor():
        with _open_checked(path) as stream:
            header = _read_header(stream, path.name)
            n_bytes = _check_header(header, path.name, max_values)
            offset = int(header["vox_offset"])
            if path.suffix.lower() == ".nii" and path.stat().st_size < offset + n_bytes:
                raise MapInputError(
                    f"{path.name}: the file is truncated: its header declares {offset + n_bytes} "
                    f"bytes, it has {path.stat().st_size}. {_AGAIN}"
                )
            start = stream.tell()
            before = stream.read(offset - start)
            _refuse_spectra(header, before, path.name)
            raw = stream.read(n_bytes)
            if len(raw) < n_bytes:
                raise MapInputError(
                    f"{path.name}: the file is truncated: its data end after {len(raw)} of {n_bytes} bytes. {_AGAIN}"
                )
            if len(stream.read(MAX_OFFSET_BYTES + 1)) > MAX_OFFSET_BYTES:  # reading on to the end checks the CRC
                raise MapInputError(
                    f"{path.name}: over {MAX_OFFSET_BYTES} bytes follow the data that the header declares. {_AGAIN}"
                )
        remarks: list[str] = []
        affine, code = _oriented(header, form, path.name, remarks)
        if not np.isfinite(float(header["scl_slope"])):
            remarks.append("scl_slope is not finite; values are taken unscaled")
        header["vox_offset"] = 0
        values = header.data_from_fileobj(io.BytesIO(raw))
        placed = bool(header["sform_code"] > 0 or header["qform_code"] > 0)
        return Volume(_as_stack(values), affine, code, tuple(remarks), placed)


def declared_grid(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine (mm) in the header of a ``.nii`` or ``.nii.gz`` file; nothing after the header is read.

    Raises:
        MapInputError: The header cannot be used.
    """
    with _one_error(path.name), LoggingOutputSuppressor(), _open_checked(path) as stream:
        header = _read_header(stream, path.name)
        _check_header(header, path.name, MAX_VALUES)
        shape = tuple(int(n) for n in header["dim"][1 : int(header["dim"][0]) + 1])
        return shape, _oriented(header, "auto", path.name, [])[0]


def volume_from_image(image: SpatialImage, where: str, form: Form = "auto", max_values: int = MAX_VALUES) -> Volume:
    """Take an image object that the caller has loaded or built; same checks as :func:`read_nifti` but for the CRC.

    The image's own ``affine`` is used unless ``form`` names one of the header's.

    Raises:
        MapInputError: As for files.
    """
    with _one_error(where), LoggingOutputSuppressor():
        _check_values(image.shape, image.get_data_dtype(), where, max_values)
        remarks: list[str] = []
        code = 1
        affine = image.affine
        if isinstance(image.header, nib.Nifti1Header):
            _refuse_spectra(image.header, b"", where)
            header = image.header
            if form == "auto" and affine is not None:
                code = int(header["sform_code"]) or int(header["qform_code"]) or 1
                affine = _to_mm(affine, header, where, remarks)
            else:
                affine, code = _oriented(header, form, where, remarks)
        affine = check_affine(affine, where)
        _remark_on_axes(affine, remarks)
        return Volume(_as_stack(np.asanyarray(image.dataobj)), affine, code, tuple(dict.fromkeys(remarks)))


@contextmanager
def _one_error(where: str) -> Iterator[None]:
    """Turn whatever a parser of hostile bytes can raise into our one exception type (this is the boundary for it)."""
    try:
        yield
    except MapInputError:
        raise
    except (EOFError, zlib.error) as error:
        raise MapInputError(f"{where}: the file is truncated or damaged ({error}). {_AGAIN}") from error
    except gzip.BadGzipFile as error:
        raise MapInputError(f"{where}: the file is corrupt: {error}. {_AGAIN}") from error
    except MemoryError as error:
        raise MapInputError(f"{where}: not enough memory for the size its header declares.") from error
    except OSError as error:
        raise MapInputError(f"{where}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise MapInputError(f"{where}: not a valid NIfTI image ({detail}). {_AGAIN}") from error


def _open_checked(path: Path) -> IO[bytes]:
    """Open the file by its content, after comparing that with its name."""
    if not path.exists():
        raise MapInputError(f"{path.name}: there is no such file. Check the path.")
    if not path.is_file():
        raise MapInputError(f"{path.name}: is not a file. Give a .nii or .nii.gz file here.")
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        raise MapInputError(f"{path.name}: is not a NIfTI file by its name. Give a .nii or .nii.gz file.")
    with path.open("rb") as stream:
        start = stream.read(4)
    if not start:
        raise MapInputError(f"{path.name}: the file is empty. {_AGAIN}")
    zipped = start[:2] == b"\x1f\x8b"
    if name.endswith(".gz") and not zipped:
        plain = len(start) == 4 and (int.from_bytes(start, "little") in _HEADERS or int.from_bytes(start) in _HEADERS)
        hint = "it is an uncompressed NIfTI file: rename it to .nii" if plain else f"it holds something else. {_AGAIN}"
        raise MapInputError(f"{path.name}: is not compressed with gzip although its name ends in .gz; {hint}")
    if zipped and not name.endswith(".gz"):
        raise MapInputError(f"{path.name}: is compressed with gzip: rename it to .nii.gz")
    return cast(IO[bytes], gzip.open(path, "rb")) if zipped else path.open("rb")


def _read_header(stream: IO[bytes], where: str) -> nib.Nifti1Header:
    block = stream.read(348)
    if len(block) < 348:
        raise MapInputError(f"{where}: the file is truncated within its header. {_AGAIN}")
    size = next((size for order in ("<i", ">i") if (size := struct.unpack(order, block[:4])[0]) in _HEADERS), None)
    if size is None:
        raise MapInputError(f"{where}: not a valid NIfTI header (it does not start with its size). {_AGAIN}")
    block += stream.read(size - 348)
    try:
        header = _HEADERS[size](block, check=True)
    except Exception as error:
        raise MapInputError(f"{where}: not a valid NIfTI header ({error}). {_AGAIN}") from error
    if not bytes(header["magic"]).startswith((b"n+1", b"n+2")):
        raise MapInputError(f"{where}: the header belongs to a .hdr/.img pair. Convert it to one .nii.gz file first.")
    return header


def _check_header(header: nib.Nifti1Header, where: str, max_values: int) -> int:
    """Return the number of data bytes after checking sizes, type and offset."""
    n_axes = int(header["dim"][0])
    if not 1 <= n_axes <= 7:
        raise MapInputError(f"{where}: not a valid NIfTI header ({n_axes} axes). {_AGAIN}")
    shape = tuple(int(n) for n in header["dim"][1 : n_axes + 1])
    dtype = header.get_data_dtype()
    _check_values(shape, dtype, where, max_values)
    offset = float(header["vox_offset"])
    if not header.sizeof_hdr + 4 <= offset <= header.sizeof_hdr + MAX_OFFSET_BYTES:
        raise MapInputError(f"{where}: not a valid NIfTI header (data at byte {offset:g}). {_AGAIN}")
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _check_values(shape: tuple[int, ...], dtype: np.dtype, where: str, max_values: int) -> None:
    if dtype.names or dtype.kind not in "fiubc":
        raise MapInputError(
            f"{where}: holds colours or records ({dtype}), not one number per voxel. "
            "Give the map itself, not a picture of it."
        )
    if dtype.kind == "c":
        points = f", {shape[3]} points" if len(shape) > 3 else ""
        raise MapInputError(f"{where}: holds spectra or complex data ({dtype}{points}), not a metabolite map. {_FIT}")
    if len(shape) < 2 or min(shape) < 1:
        raise MapInputError(f"{where}: has the shape {shape}; a map has at least one voxel along X, Y and Z. {_AGAIN}")
    check_size(shape, where, max_values)


def check_size(shape: tuple[int, ...], where: str, max_values: int = MAX_MAP_VALUES) -> None:
    """Refuse more values than an image of its kind can have.

    Raises:
        MapInputError: It has.
    """
    count = math.prod(shape)
    if count > max_values:
        raise MapInputError(
            f"{where}: has {' x '.join(map(str, shape))} = {count} values, more than the {max_values} accepted. "
            "Check that this is the right file."
        )


def _refuse_spectra(header: nib.Nifti1Header, extensions: bytes, where: str) -> None:
    """Refuse real-valued NIfTI-MRS data (a fourth axis of time or frequency); a 3-D map with that tag is a map."""
    tagged = bytes(header["intent_name"]).startswith(b"mrs_v") or _ECODE_NIFTI_MRS in _extension_codes(
        extensions, header.endianness
    )
    if tagged and header["dim"][0] > 3 and header["dim"][4] > 1:
        points = int(header["dim"][4])
        raise MapInputError(f"{where}: holds spectra (NIfTI-MRS, {points} points), not a metabolite map. {_FIT}")


def _extension_codes(block: bytes, endianness: str) -> list[int]:
    codes, position = [], 4
    while block[:1] not in (b"", b"\0") and position + 8 <= len(block):
        size, code = struct.unpack_from(f"{endianness}ii", block, position)
        codes.append(code)
        if size < 8:  # would not advance: a damaged chain, of no further interest
            break
        position += size
    return codes


def _to_mm(
    affine: NDArray[np.float64], header: nib.Nifti1Header, where: str, remarks: list[str]
) -> NDArray[np.float64]:
    """Convert the affine to mm by the header's spatial unit; an unset unit is mm, as every MRI tool takes it."""
    unit = int(header["xyzt_units"]) & 7
    factor = _TO_MM.get(unit, 1.0)
    matrix = np.array(affine, dtype=np.float64)
    matrix[:3] *= factor
    if unit not in (0, 1, 2, 3):
        remarks.append(f"the spatial unit has the unknown code {unit}; mm is assumed")
    if factor != 1.0 and np.isfinite(matrix).all():
        sizes = voxel_sizes_mm(matrix)
        written = {1: "metres", 3: "microns"}[unit]
        if min(sizes) < _PLAUSIBLE_VOXEL_MM[0] or max(sizes) > _PLAUSIBLE_VOXEL_MM[1]:
            raise MapInputError(
                f"{where}: its spatial unit is {written}, which makes voxels of "
                f"{' x '.join(f'{mm:g}' for mm in sizes)} mm. Correct xyzt_units in the header."
            )
        remarks.append(
            f"the header's unit is {written}; converted to mm (voxels of {' x '.join(f'{mm:.4g}' for mm in sizes)} mm)"
        )
    return matrix


def _oriented(header: nib.Nifti1Header, form: Form, where: str, remarks: list[str]) -> tuple[NDArray[np.float64], int]:
    """Choose the affine between sform and qform, in mm, with remarks for the user."""
    s_code, q_code = int(header["sform_code"]), int(header["qform_code"])
    if (form == "s" and s_code < 1) or (form == "q" and q_code < 1):
        raise MapInputError(f"{where}: the {form}form was requested but is not set. Use another form, or auto.")
    if not np.isfinite(header["pixdim"][1:4]).all():
        remarks.append("pixdim is not finite; voxel sizes are taken from the affine")
    use_s = form == "s" or (form == "auto" and s_code > 0)
    if use_s:
        affine, code = header.get_sform(), s_code
    elif q_code > 0:
        affine, code = header.get_qform(), q_code
    else:
        affine, code = header.get_base_affine(), 1
        remarks.append("neither sform nor qform is set: the position of the map in the head is unknown")
    affine = check_affine(_to_mm(affine, header, where, remarks), where)
    if s_code > 0 and q_code > 0:
        _remark_on_difference(header, use_s, remarks)
    _remark_on_axes(affine, remarks)
    return affine, code


def _remark_on_difference(header: nib.Nifti1Header, use_s: bool, remarks: list[str]) -> None:
    try:
        shape = header.get_data_shape()
        shape = tuple(shape) + (1,) * (3 - len(shape))
        apart = fov_corner_difference_mm(header.get_sform(), shape, header.get_qform(), shape)
    except (nib.spatialimages.HeaderDataError, np.linalg.LinAlgError, ValueError):
        apart = float("nan")
    if not apart <= SAME_PLACE_MM:
        remarks.append(
            f"sform and qform differ by up to {apart:.2f} mm; the {'s' if use_s else 'q'}form is used "
            "(other programs may take the other one)"
        )


def _remark_on_axes(affine: NDArray[np.float64], remarks: list[str]) -> None:
    cosine = shear_cosine(affine)
    if cosine > SHEAR_TOLERANCE:
        remarks.append(
            f"the axes are sheared (cosine {cosine:.3f}); ITK-based tools reject such files, and a qform cannot "
            "represent them"
        )
    sizes = voxel_sizes_mm(affine)
    if min(sizes) < _PLAUSIBLE_VOXEL_MM[0] or max(sizes) > _PLAUSIBLE_VOXEL_MM[1]:
        remarks.append(f"voxels of {' x '.join(f'{mm:.4g}' for mm in sizes)} mm are implausible")


def _as_stack(values: NDArray) -> Float32:
    """Bring [X, Y], [X, Y, Z] or [X, Y, Z, ...] to a float32 [N, X, Y, Z]."""
    values = values.reshape(values.shape + (1,) * (3 - values.ndim))
    values = values.reshape(values.shape[:3] + (-1,), order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 becomes inf, which readers treat as no value
        return np.ascontiguousarray(np.moveaxis(values, -1, 0), dtype=np.float32)
