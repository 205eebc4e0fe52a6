"""Training batches: 2D slices of freshly drawn subjects under freshly drawn acquisitions, many per second.

``Simulator(config).batch(seed, step, size)`` is a pure function of its arguments, so any worker can make any batch and
a resumed run sees the same data.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.conditioning import estimate, standardise_anatomy
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.kspace import Support, Window
from mrsi_fast.mrsi.names import NAMED_CHANNELS
from mrsi_fast.mrsi.quality import fill_untrusted, upsample_nearest
from mrsi_fast.mrsi.scaling import map_scale
from mrsi_fast.simulation.acquisition import Measurement, Protocol, draw_noise, draw_press, measure
from mrsi_fast.simulation.anatomical import synthesise_t1
from mrsi_fast.simulation.anatomy import BRAIN_CLASSES
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.guidance import lifelike_image
from mrsi_fast.simulation.imperfections import draw_mismatch
from mrsi_fast.simulation.keys import Key, log_uniform
from mrsi_fast.simulation.slices import Geometry, Slice, blurred, render
from mrsi_fast.simulation.subject import Subject, draw_subject
from mrsi_fast.simulation.warp import Orientation

OTHERS: tuple[str, ...] = ("Gln", "Glu", "GSH", "Gly", "Lac")
"""What the channels other1 and other2 are drawn from."""

SMALLEST_SCALE = 1e-3
"""A map whose scale is below this many mM is empty: rounding, or the far tail of a lesion in another slice."""

WINDOWS: tuple[Window, ...] = ("hamming", "none", "hann")
WINDOW_SHARES = (0.6, 0.33, 0.07)
FACTOR_SHARES = {2: 0.35, 4: 0.35, 8: 0.3}

HEAD_FOV_MM = 170.0  # a smaller field of view holds no head, so that the sequence must excite a box


class Simulator:
    """Source of training batches.

    Args:
        config: All settings; ``SimulationConfig.preset("training")`` is what the shipped weights saw.
    """

    def __init__(self, config: SimulationConfig) -> None:
        self.config = config

    def batch(self, seed: int, step: int, size: int, first: int = 0) -> dict[str, NDArray[np.float32]]:
        """One batch on one common HR grid.

        Args:
            seed: Of the run.
            step: Number of the batch.
            size: Slices.
            first: Number of the first of them, for a part of a larger batch.

        Returns:
            float32 arrays in mM, K = 8 channels: ``hr``, ``z``, ``mask`` [B,K,X,Y]; ``presence`` (0 for a map that is
            empty by nature, such as noise-free 2HG without a tumour), ``scale``, ``noise`` [B,K]; ``factors``,
            ``voxel_mm`` [B,2]; ``anatomy`` [B,1,X,Y]; ``anatomy_present`` [B]; ``brain`` [B,X,Y].
        """
        matrix = self._grid(Key.of("batch", seed, step))
        items = [self._item(Key.of("item", seed, step, index), matrix) for index in range(first, first + size)]
        return {name: np.ascontiguousarray(np.stack([item[name] for item in items]), np.float32) for name in items[0]}

    def _grid(self, key: Key) -> tuple[int, int]:
        """HR matrix of a batch."""
        settings, rng = self.config.batch, key.stream("grid")
        if rng.random() < settings.main_grid_share:
            return settings.main_grid, settings.main_grid
        factor = int(rng.choice(list(FACTOR_SHARES), p=list(FACTOR_SHARES.values())))
        low, high = settings.lr_matrix[0], min(settings.lr_matrix[1], settings.largest_hr // factor)
        high = max(low, high)
        if settings.small_grid > 0:
            first = round(low * (high / low) ** (rng.random() ** settings.small_grid))
        else:
            first = int(rng.integers(low, high + 1))
        second = first if rng.random() < 0.5 else int(np.clip(round(first * rng.uniform(0.7, 1.4)), low, high))
        return first * factor, second * factor

    def _factors(self, rng: np.random.Generator, matrix: tuple[int, int]) -> tuple[int, int]:
        smallest = self.config.batch.smallest_lr
        allowed = [{f for f in FACTOR_SHARES if n % f == 0 and n // f >= smallest} for n in matrix]
        both = sorted(allowed[0] & allowed[1])
        if rng.random() < self.config.batch.anisotropic:
            return int(rng.choice(sorted(allowed[0]))), int(rng.choice(sorted(allowed[1])))
        shares = np.array([FACTOR_SHARES[f] for f in both])
        factor = int(rng.choice(both, p=shares / shares.sum()))
        return factor, factor

    def _geometry(
        self, rng: np.random.Generator, matrix: tuple[int, int], factors: tuple[int, int], subject: Subject
    ) -> Geometry:
        settings = self.config.batch
        if matrix == (settings.main_grid, settings.main_grid):
            voxel, slack = rng.uniform(*settings.fov_mm) / settings.main_grid, 8.0
        else:
            lr = log_uniform(rng, *settings.lr_voxel_mm)
            voxel = float(np.clip(lr / max(factors), 100.0 / max(matrix), settings.fov_mm[1] / max(matrix)))
            slack = 8.0 if voxel * min(matrix) > HEAD_FOV_MM else 20.0
        stretch = 1.0
        if settings.unequal_voxels > 0 and rng.random() < settings.unequal_voxels:
            stretch = float(np.exp(rng.uniform(-0.5, 0.5) * np.log(2)))
        height = rng.uniform(-30.0, 44.0)
        if subject.lesion is not None and rng.random() < 0.7:
            height = subject.lesion.centre[2] + rng.uniform(-0.8, 0.8) * min(subject.lesion.shapes[0].reach, 30.0)
        centre = (float(rng.uniform(-slack, slack)), float(rng.uniform(-slack, slack)))
        fine = max(1, round(voxel / self.config.object_voxel_mm))
        return Geometry(
            matrix,
            (float(voxel * stretch), float(voxel / stretch)),
            centre,
            float(height),
            log_uniform(rng, *settings.thickness_mm),
            fine,
            self.config.label_refinement,
            self.config.object_plane_mm,
            self.config.precision,
        )

    def _protocol(self, rng: np.random.Generator, geometry: Geometry, factors: tuple[int, int]) -> Protocol:
        lr_shape = (geometry.matrix[0] // factors[0], geometry.matrix[1] // factors[1])
        signal, settings = self.config.signal, self.config.batch
        boxed = rng.random() < signal.press or min(geometry.fov_mm) < HEAD_FOV_MM
        press = draw_press(rng, geometry.fov_mm, signal) if boxed else None
        if rng.random() < settings.paper_like:
            return Protocol(Acquisition(lr_shape, factors), press=press)
        mismatch = draw_mismatch(rng, signal) if signal.mismatch > 0 else None
        support: Support = "ellipse" if rng.random() < 0.55 else "square"
        window = WINDOWS[int(rng.choice(len(WINDOWS), p=WINDOW_SHARES))]
        operator = Acquisition(lr_shape, factors, support, window)
        if rng.random() < settings.noise_free:
            return Protocol(operator, "object", press=press, mismatch=mismatch)
        excess = log_uniform(rng, *signal.excess)
        silent = signal.silent_background > 0 and rng.random() < signal.silent_background
        lipid = log_uniform(rng, 0.5, 20.0) if press is None and rng.random() < signal.lipid else 0.0
        return Protocol(
            operator,
            "object",
            draw_noise(rng, signal),
            float(rng.uniform(*signal.missing)),
            bool(rng.random() < signal.masked),
            press,
            lipid,
            excess=excess,
            mismatch=mismatch,
            silent=silent,
        )

    def _item(self, key: Key, matrix: tuple[int, int]) -> dict[str, NDArray]:
        rng = key.stream("item")
        others = [str(name) for name in rng.choice(OTHERS, 2, replace=False)]
        orientation = self._orientation(key)
        subject = draw_subject(self.config, key, (*NAMED_CHANNELS, *others), orientation=orientation)
        factors = self._factors(rng, matrix)
        geometry = self._geometry(rng, matrix, factors, subject)
        protocol = self._protocol(rng, geometry, factors)
        part = self._blurred(render(subject, geometry, protocol.press), geometry, key)
        measured = measure(
            part.slab, part.truth, subject.names, subject.noise_sd, protocol, self.config.signal, key, key
        )
        declared = rng.random() < self.config.batch.declared
        operator = protocol.operator if declared else replace(protocol.operator, support="square", window="none")
        with_t1 = rng.random() < self.config.batch.anatomy
        anatomy: NDArray
        if not with_t1:
            anatomy = np.zeros(matrix)
        elif self.config.guidance.lifelike:
            anatomy = lifelike_image(self.config, subject, geometry, orientation, key)
        else:
            anatomy = self._anatomy(rng, part, key)
        told = np.exp(self.config.batch.noise_told_sd * rng.standard_normal(len(subject.names)))
        if protocol.excess > 1:  # the user's level may be the Cramér-Rao bound, the true one or anything in between
            told *= protocol.excess ** max(0.0, rng.uniform(-1, 1))
        return conditioning(measured, operator, told) | {
            "hr": part.truth,
            "factors": np.array(factors),
            "voxel_mm": np.array(geometry.voxel),
            "anatomy": anatomy[None],
            "anatomy_present": np.array(with_t1),
            "brain": part.fractions[BRAIN_CLASSES].sum(0) > 0.5,
        }

    def _blurred(self, part: Slice, geometry: Geometry, key: Key) -> Slice:
        """The slice as it is, or smooth on the scale of the HR voxel."""
        rng, signal = key.stream("blur"), self.config.signal
        return blurred(part, geometry, rng.uniform(*signal.blur_voxels)) if rng.random() < signal.blur else part

    def _orientation(self, key: Key) -> Orientation:
        share = self.config.batch.reoriented
        if share == 0:
            return "axial"
        rng = key.stream("orientation")
        turned: tuple[Orientation, ...] = ("coronal", "sagittal")
        return turned[int(rng.integers(2))] if rng.random() < share else "axial"

    @staticmethod
    def _anatomy(rng: np.random.Generator, part: Slice, key: Key) -> NDArray:
        """T1 image [X, Y] in standard units, up to what other slices of the same head would change in them."""
        lesions = tuple(lesion for lesion in (part.anatomy_lesion, part.lesion) if lesion.any())
        anatomy = standardise_anatomy(synthesise_t1(part.fractions, lesions, key, key))
        return np.where(anatomy != 0, anatomy * rng.uniform(0.85, 1.2) + rng.normal(0, 0.15), 0)


def conditioning(measured: Measurement, operator: Acquisition, told: NDArray[np.floating]) -> dict[str, NDArray]:
    """What the network is told about the measurement: estimate, mask, scale and noise of every map.

    Args:
        measured: LR maps with trust and noise.
        operator: The operator that the estimate assumes.
        told: Factor [K] by which the noise level that the user states differs from the true one.

    Returns:
        ``z`` and ``mask`` [K,X,Y], ``presence``, ``scale``, ``noise`` [K].
    """
    trusted = measured.trusted
    filled = fill_untrusted(measured.maps, trusted, measured.support)
    noise = measured.noise * told
    scale = map_scale(filled, trusted & measured.support, noise)
    present = scale > SMALLEST_SCALE
    mask = upsample_nearest((trusted & present[:, None, None])[..., None], (*operator.factors, 1))[..., 0]
    return {
        "z": estimate(operator, filled, bool(noise.any())),
        "mask": mask,
        "presence": present,
        "scale": np.where(present, scale, 1.0),
        "noise": noise,
    }
