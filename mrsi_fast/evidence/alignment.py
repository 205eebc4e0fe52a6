"""Rigid alignment of an anatomical image to metabolite maps: the place where the image explains the maps best.

Maps of 5 to 15 mm voxels have no edges to match. What they have is contrast between tissues, blurred by a known
operator. So the image is taken through that operator: its intensities are split into a few overlapping bands, each band
is averaged over the voxels and acquired like the maps (``A``), and every map is explained as a combination of the bands
and a smooth field. The unexplained share of the maps' variance is what is minimised: the correlation ratio (Roche et
al. 1998, 10.1007/BFb0056301) between image and maps, at the resolution and with the point spread of the maps. It knows
nothing of contrasts, so T2 and FLAIR serve as T1 does, and a map's noise only widens its minimum.

A brain and its mirror image are alike in all but what is that person's own. So the mirrored image, aligned likewise, is
the control: an image that does not explain the maps better than its mirror image is not known to be of this person, or
to lie right. An image that explains them better once it is flipped front to back or head to foot is upside down.

The maps never move. A placement turns the image about the centre of the maps and shifts it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.preparation import AcquisitionSettings

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

BAND_PERCENTILES = (1.0, 15.0, 35.0, 55.0, 75.0, 99.0)
"""Where the overlapping bands of intensity are centred, among the image's voxels with signal."""

BAND_VOXEL_MM = 2.0
"""Bands are averaged to about this voxel: fine beside any map, and ten times less to interpolate than 1 mm."""

SIGNAL_SHARE = 0.05
"""Voxels below this share of the 99th percentile are background."""

MODEL_VOXEL_MM = 4.0
"""The object behind the maps is modelled on the coarsest grid of 1, 2 or 4 points a voxel that is this fine."""

MODEL_PLANE_MM = 3.0
"""Slices are averaged over planes at most this far apart."""

EXPECTED = 5.0
"""Standard deviation of a misplacement that is expected, mm and degrees: it holds what the maps leave open."""

CORRELATED_VOXELS = 4.0
"""Voxels that share one independent error of the fit: texture and point spread reach to the neighbours."""

FLIPPED_TRIES = 20
"""Evaluations for an image that is flipped front to back or head to foot: one that ought to be is far
better at once."""

SMALLEST_SLOPE = 0.1
"""The search ends where the log-likelihood changes by less than this for a mm or a degree."""


@dataclass(frozen=True)
class Placement:
    """How an image is moved, in mm and degrees about a centre: turned about X, then Y, then Z, then shifted.

    Attributes:
        shift_mm: Along X, Y, Z (RAS+).
        turn_deg: About X, Y, Z.
        centre_mm: The fixed point of the turns.
    """

    shift_mm: tuple[float, float, float]
    turn_deg: tuple[float, float, float]
    centre_mm: tuple[float, float, float]

    @property
    def matrix(self) -> Float64:
        """[4, 4], to be multiplied from the left to the image's affine."""
        values = torch.tensor([*self.shift_mm, *self.turn_deg], dtype=torch.float64)
        return _rigid(values, torch.tensor(self.centre_mm, dtype=torch.float64)).numpy()

    @property
    def distance_mm(self) -> float:
        """Length of the shift."""
        return float(np.linalg.norm(self.shift_mm))

    @property
    def angle_deg(self) -> float:
        """Angle of the turn as a whole."""
        cosine = (np.trace(self.matrix[:3, :3]) - 1) / 2
        return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))


@dataclass(frozen=True)
class Alignment:
    """The best placement and how well it explains the maps.

    Attributes:
        placement: How the image has to be moved.
        explained: Share of the maps' variance that the image explains there, mean over maps, 0 to 1.
        explained_before: The same where the affines put it.
        explained_mirrored: The same for the mirrored image where that fits best.
        explained_by_field: The same for a smooth field without any image.
        advantage: Log-likelihood of the image over that of its mirror image.
        advantage_flipped: The same over the better one of the images flipped front to back and head to foot; about 0
            for a single slice, which is its own image head to foot.
        evaluations: How often the fit was computed.
    """

    placement: Placement
    explained: float
    explained_before: float
    explained_mirrored: float
    explained_by_field: float
    advantage: float
    advantage_flipped: float
    evaluations: int

    @property
    def own_share(self) -> float:
        """Share of what the image explains beyond a smooth field that its mirror image does not; free of noise."""
        return (self.explained - self.explained_mirrored) / max(self.explained - self.explained_by_field, 1e-6)


def _rigid(values: Tensor, centre: Tensor) -> Tensor:
    """[4, 4] of three shifts (mm) and three turns (degrees), differentiable."""
    matrix = torch.eye(3, dtype=values.dtype)
    for axis in range(3):
        a, b = [k for k in range(3) if k != axis]
        angle = torch.deg2rad(values[3 + axis])
        cos, sin = torch.cos(angle), torch.sin(angle)
        pattern = torch.zeros(3, 3, 3, dtype=values.dtype)
        pattern[0, axis, axis] = 1
        pattern[1, a, a] = pattern[1, b, b] = 1
        pattern[2, a, b], pattern[2, b, a] = -1, 1
        matrix = (pattern[0] + cos * pattern[1] + sin * pattern[2]) @ matrix
    shift = values[:3] + centre - matrix @ centre
    top = torch.cat([matrix, shift[:, None]], dim=1)
    return torch.cat([top, torch.tensor([[0.0, 0, 0, 1]], dtype=values.dtype)])


class Fit:
    """How well an image in a given place explains the maps.

    Args:
        image: [X, Y, Z] anatomical image.
        image_affine: Its affine, mm.
        maps: [M, nx, ny, Z] measured maps, untrusted voxels filled.
        valid: [nx, ny, Z] voxels that count.
        affine: Of the maps.
        known: What was declared of the acquisition of the maps.
    """

    def __init__(
        self,
        image: NDArray,
        image_affine: NDArray,
        maps: NDArray,
        valid: Bool,
        affine: NDArray,
        known: AcquisitionSettings | None = None,
    ) -> None:
        known = known or AcquisitionSettings()
        self.bands, self._to_band = _bands(image, np.asarray(image_affine, np.float64))
        voxel = voxel_sizes_mm(affine)
        factor = next((f for f in (1, 2, 4) if max(voxel[:2]) / f <= MODEL_VOXEL_MM), 4)
        self._operator = Acquisition.assume(
            maps.shape[1:3], (factor, factor), known.support, known.window, acquired=known.matrix
        )
        self._used = [z for z in range(maps.shape[3]) if valid[..., z].any()]
        self._points = _points(affine, maps.shape[1:], factor, self._used, voxel[2])
        self._valid = torch.from_numpy(np.moveaxis(valid[..., self._used], -1, 0).copy())
        inside = _points(affine, maps.shape[1:], 1, self._used, 0.0)[:, 0][self._valid]
        self.centre = inside.mean(0)
        offset = (inside - self.centre) / (inside - self.centre).abs().max().clamp_min(1.0)
        x, y, z = offset.T
        flat = [x, y, x * x, y * y, x * y] + ([z, z * z] if len(self._used) > 2 else [])
        self._field = torch.stack([torch.ones_like(x), *flat], dim=1).float()
        data = torch.from_numpy(np.moveaxis(maps[..., self._used], -1, 1).astype(np.float32))[:, self._valid].T
        self._data = ((data - data.mean(0)) / data.std(0).clamp_min(1e-12)).double()
        self.observations = len(self._data) / CORRELATED_VOXELS
        self.evaluations = 0

    def unexplained(self, values: Tensor) -> Tensor:
        """Share of each map's variance [M] that the image leaves unexplained at a placement [6]; differentiable."""
        self.evaluations += 1
        design = self._design(values).double()  # bands and field can hardly be told apart: float32 would not do
        with torch.no_grad():
            gram = design.T @ design
            ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
            weights = torch.linalg.solve(gram + ridge, design.T @ self._data)
        return ((self._data - design @ weights) ** 2).mean(0)

    def likelihood(self, values: Tensor) -> Tensor:
        """Log-likelihood of a placement, up to a constant, each map's error unknown; differentiable."""
        return -0.5 * self.observations * torch.log(self.unexplained(values).clamp_min(1e-6)).sum()

    def explained_by_field(self) -> float:
        """Share of the maps' variance that the smooth field alone explains, mean over maps."""
        field = self._field.double()
        weights = torch.linalg.lstsq(field, self._data).solution
        return 1 - float(((self._data - field @ weights) ** 2).mean())

    def mirrored(self, placement: Placement, axis: int = 0) -> Fit:
        """The same maps with the image moved to a placement and mirrored about the centre along X, Y or Z (RAS+)."""
        mirror = np.eye(4)
        mirror[axis, axis], mirror[axis, 3] = -1.0, 2 * float(self.centre[axis])
        other = copy.copy(self)
        other._to_band = self._to_band @ torch.from_numpy(np.linalg.inv(mirror @ placement.matrix)).float()
        return other

    def _design(self, values: Tensor) -> Tensor:
        """[N, columns] acquired bands at the valid voxels, and the smooth field times what the image covers."""
        matrix = torch.linalg.inv(_rigid(values.double(), self.centre.double())).float()
        voxel = (self._points @ matrix[:3, :3].T + matrix[:3, 3]) @ self._to_band[:3, :3].T + self._to_band[:3, 3]
        size = torch.tensor(self.bands.shape[:0:-1])  # X, Y, Z of [bands, Z, Y, X]
        grid = 2 * voxel / (size - 1) - 1
        found = torch.nn.functional.grid_sample(
            self.bands[None], grid.reshape(1, 1, 1, -1, 3), mode="bilinear", padding_mode="zeros", align_corners=True
        )
        hr = self._operator.hr_shape
        images = found.reshape(len(self.bands), len(self._used), -1, *hr).mean(2)
        acquired = self._operator.forward(images)[:, self._valid].T
        return torch.cat([acquired, self._field], dim=1)


def align(fit: Fit) -> Alignment:
    """Finds the placement that leaves least unexplained, and how well the mirrored images do at their best.

    Args:
        fit: Image and maps.
    """
    values = _best(fit)
    shift, turn = tuple(map(float, values[:3])), tuple(map(float, values[3:]))
    placement = Placement(shift, turn, tuple(map(float, fit.centre)))  # type: ignore[arg-type]
    controls = [fit.mirrored(placement, axis) for axis in range(3)]
    placed = [_best(controls[0]), *(_best(control, FLIPPED_TRIES) for control in controls[1:])]
    with torch.no_grad():
        explained, before, of_mirror = (
            1 - float(one.unexplained(v).mean())
            for one, v in ((fit, values.float()), (fit, torch.zeros(6)), (controls[0], placed[0].float()))
        )
        own = fit.likelihood(values.float())
        mirror, *flipped = (float(own - one.likelihood(v.float())) for one, v in zip(controls, placed, strict=True))
    tries = fit.evaluations + sum(control.evaluations for control in controls)
    return Alignment(placement, explained, before, of_mirror, fit.explained_by_field(), mirror, min(flipped), tries)


def _best(fit: Fit, tries: int | None = None) -> Tensor:
    """The placement [6] of largest posterior probability, or the best within a number of evaluations."""
    from scipy import optimize  # 0.3 s to import: only where there is an image

    def cost(numbers: NDArray) -> tuple[float, NDArray]:
        values = torch.tensor(numbers, dtype=torch.float32, requires_grad=True)
        total = 0.5 * ((values / EXPECTED) ** 2).sum() - fit.likelihood(values)
        total.backward()
        assert values.grad is not None
        return float(total.detach()), values.grad.double().numpy()

    method, limit = ("BFGS", {"maxiter": 40}) if tries is None else ("L-BFGS-B", {"maxfun": tries})
    options = limit | {"gtol": SMALLEST_SLOPE}
    return torch.from_numpy(optimize.minimize(cost, np.zeros(6), jac=True, method=method, options=options).x)


def _bands(image: NDArray, affine: Float64) -> tuple[Tensor, Tensor]:
    """Overlapping bands of intensity [bands, Z, Y, X], averaged to a coarser grid, and mm to its voxels [4, 4]."""
    steps = [max(1, round(BAND_VOXEL_MM / size)) for size in voxel_sizes_mm(affine)]
    image = np.nan_to_num(np.asarray(image, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    thinned = image[::2, ::2, ::2] if image.size > 1e6 else image
    floor = SIGNAL_SHARE * np.percentile(thinned[thinned > 0], 99) if (thinned > 0).any() else np.inf
    signal = thinned[thinned > floor]
    centres = np.unique(np.percentile(signal, BAND_PERCENTILES)).astype(np.float32) if signal.size else signal
    if len(centres) < 2:
        raise ValueError("An image with one value shows no anatomy.")
    image, affine = _cropped(image, image > floor, affine)
    inside = image > floor
    values = np.clip(image, centres[0], centres[-1])
    bands = []
    for index, centre in enumerate(centres):
        weights = np.ones_like(values)
        if index > 0:
            weights = np.minimum(weights, (values - centres[index - 1]) / (centre - centres[index - 1]))
        if index + 1 < len(centres):
            weights = np.minimum(weights, (centres[index + 1] - values) / (centres[index + 1] - centre))
        bands.append(_block_means(np.where(inside, np.maximum(weights, 0), 0), steps))
    coarse = affine.copy()
    coarse[:3, 3] = affine[:3, :3] @ ((np.array(steps) - 1) / 2) + affine[:3, 3]
    coarse[:3, :3] = affine[:3, :3] * np.array(steps)
    stack = np.stack(bands).transpose(0, 3, 2, 1)
    return torch.from_numpy(np.ascontiguousarray(stack)), torch.from_numpy(np.linalg.inv(coarse)).float()


def _cropped(image: Float32, inside: Bool, affine: Float64) -> tuple[Float32, Float64]:
    """The image within the box that holds all of ``inside``, and its affine."""
    box = []
    for axis in range(3):
        used = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.array([part.start for part in box])
    return image[tuple(box)], moved


def _block_means(image: NDArray, steps: Sequence[int]) -> Float32:
    """Means over blocks, one voxel of nothing added around."""
    padded = np.pad(image, [(0, -n % step) for n, step in zip(image.shape, steps, strict=True)])
    (x, y, z), (nx, ny, nz) = steps, padded.shape
    blocks = padded.reshape(nx // x, x, ny // y, y, nz // z, z)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)


def _points(affine: NDArray, shape: Sequence[int], factor: int, used: Sequence[int], thickness: float) -> Tensor:
    """Places of the model's points in mm [Z, planes, X, Y, 3]."""
    planes = max(1, int(np.ceil(thickness / MODEL_PLANE_MM)))
    along = [(np.arange(n * factor) + 0.5) / factor - 0.5 for n in shape[:2]]
    heights = np.array(used)[:, None] + (np.arange(planes) + 0.5) / planes - 0.5
    z, x, y = np.broadcast_arrays(
        heights[:, :, None, None], along[0][None, None, :, None], along[1][None, None, None, :]
    )
    index = np.stack([x, y, z, np.ones_like(x)], axis=-1)
    return torch.from_numpy((index @ np.asarray(affine, np.float64).T)[..., :3].astype(np.float32))
