"""Settings of mrsi-sim: every probability, range and width, with the protocol's values as defaults."""

from __future__ import annotations

from importlib import resources
from typing import Annotated, Literal, Self

import pydantic

from mrsi_fast.config import ConfigError, Settings

Range = tuple[float, float]

LARGEST_MATRIX = 1024
"""Voxels along one axis, planes included."""

_Side = Annotated[int, pydantic.Field(ge=1, le=LARGEST_MATRIX)]


class AnatomyConfig(Settings):
    """Which heads are simulated and how each one is varied.

    Attributes:
        heads: ``phantom`` (analytic head, needs no data) or a folder of label maps ``sub-XX_dseg.nii.gz``. A relative
            folder that does not exist is looked for under ``$MRSI_FAST_DATA`` too.
        split: ``train``, ``val``, ``test`` by the table in :mod:`mrsi_fast.simulation.anatomy`, or ``all``.
        tumour_masks: Folder of real tumour masks in the layout of Brain-Tumor-Progression, or None; it is looked for
            as ``heads`` is, and not used with the phantom.
        rotation_deg: Largest rotation about each axis.
        scale: Range of the isotropic and, again, of each axis' relative size (square root of it).
        elastic_mm: Standard deviation of the elastic displacement per axis; it is cut at 2.5 of them.
        elastic_scale_mm: Width (standard deviation of the smoothing kernel) of the elastic field.
        ventricle_scale: Largest relative change of the ventricles' size.
        flip: Whether left and right are exchanged in half of the subjects.
    """

    heads: str = "phantom"
    split: Literal["train", "val", "test", "all"] = "train"
    tumour_masks: str | None = None
    rotation_deg: float = pydantic.Field(10.0, ge=0)
    scale: Range = (0.9, 1.1)
    elastic_mm: float = pydantic.Field(1.6, ge=0)
    elastic_scale_mm: float = pydantic.Field(12.0, gt=0)
    ventricle_scale: float = pydantic.Field(0.25, ge=0, lt=0.6)
    flip: bool = True


class VariationConfig(Settings):
    """How concentrations vary around the table: between subjects, by region and as fine texture (relative SDs).

    Attributes:
        subject_sd: Of each metabolite and tissue between subjects (log-normal).
        region_sd: Of each anatomical region, and of a smooth field of ``region_scale_mm``.
        region_scale_mm: Width of that field.
        gradient: Largest relative change from the centre to ``gradient_length_mm`` along anterior-posterior.
        gradient_length_mm: Length of the gradient.
        texture_sd: Range of the SD of the fine texture.
        texture_scale_mm: Range of its width.
        texture_shared: Largest share of texture variance that all metabolites have in common.
        texture_log: Whether ``texture_sd`` is drawn uniformly in the logarithm.
        texture_tail: Spread of the texture's local amplitude (SD of its logarithm), which makes its tails heavy.
        patch_sd: Range of the SD of a second texture, of ``patch_scale_mm``, drawn uniformly in the logarithm; (0, 0)
            is none.
        patch_scale_mm: Range of its width.
        contrast_sd: Of the ratio of grey to white matter that all metabolites share (relaxation weighting).
        rim: Share of subjects whose maps rise or fall towards the edge of the brain.
        rim_change: Range of the relative change at the edge.
        rim_mm: Range of its decay length.
        concentration_set: Column of the concentration table to prefer, e.g. ``7T`` (Ins in WM).
    """

    subject_sd: float = pydantic.Field(0.10, ge=0)
    region_sd: float = pydantic.Field(0.05, ge=0)
    region_scale_mm: float = pydantic.Field(20.0, gt=0)
    gradient: float = pydantic.Field(0.08, ge=0)
    gradient_length_mm: float = pydantic.Field(90.0, gt=0)
    texture_sd: Range = (0.03, 0.03)
    texture_scale_mm: Range = (4.0, 4.0)
    texture_shared: float = pydantic.Field(0.5, ge=0, le=1)
    texture_log: bool = False
    texture_tail: float = pydantic.Field(0.0, ge=0, le=1)
    patch_sd: Range = (0.0, 0.0)
    patch_scale_mm: Range = (6.0, 12.0)
    contrast_sd: float = pydantic.Field(0.0, ge=0)
    rim: float = pydantic.Field(0.0, ge=0, le=1)
    rim_change: Range = (-0.4, 0.35)
    rim_mm: Range = (5.0, 10.0)
    concentration_set: Literal["3T", "7T", "any"] = "3T"


class TumourConfig(Settings):
    """Lesions: how often, how large, of which kind.

    Attributes:
        probability: Share of subjects with a lesion.
        single_metabolite: Share of lesions that change one map only.
        idh_mutant: Share of the other lesions that are IDH-mutant (the rest is IDH wild type).
        real_shape: Share of lesions whose outline is a real tumour mask, where a folder of masks is given.
        radius_mm: Range of the radius, drawn log-uniformly.
        edge_mm: Range of the width of the logistic edge.
        irregularity: SD of the relative radius over directions.
        infiltration: Largest membership just outside the edge.
        infiltration_mm: Range of its decay length.
        satellites: Share of lesions with one to three satellites.
        texture_sd: SD of the log-normal heterogeneity inside (width 6 mm).
        t1_only: Share of subjects with a lesion on the T1 image that no map has.
    """

    probability: float = pydantic.Field(0.8, ge=0, le=1)
    single_metabolite: float = pydantic.Field(0.2, ge=0, le=1)
    idh_mutant: float = pydantic.Field(0.7, ge=0, le=1)
    real_shape: float = pydantic.Field(0.3, ge=0, le=1)
    radius_mm: Range = (4.0, 28.0)
    edge_mm: Range = (1.5, 4.0)
    irregularity: float = pydantic.Field(0.15, ge=0)
    infiltration: float = pydantic.Field(0.6, ge=0, le=1)
    infiltration_mm: Range = (3.0, 8.0)
    satellites: float = pydantic.Field(0.15, ge=0, le=1)
    texture_sd: float = pydantic.Field(0.20, ge=0)
    t1_only: float = pydantic.Field(0.15, ge=0, le=1)


class SignalConfig(Settings):
    """What the scanner does to the object and to the measurement, beside sampling k-space.

    Attributes:
        bias: Largest deviation of the B1 field, common to all metabolites (0.15 = 15 %).
        noise: Range of the factor on the table's noise (log-uniform); (0, 0) is noise-free.
        noise_inhomogeneity: Relative increase of the noise where B0 is worst.
        fit_gain_sd: SD of one random gain per map; irrecoverable by construction.
        cross_talk: Share of Glx (or Glu) that the fit takes for 2HG.
        spikes: Share of voxels per map with a failed fit.
        missing: Range of the share of brain voxels without any fit, in clusters.
        press: Share of acquisitions with a PRESS box.
        chemical_shift_ppm_mm: Displacement of the box per ppm.
        lipid: Share of acquisitions with lipid from the scalp in the maps.
        masked: Share of acquisitions whose maps are not trusted outside the brain.
        poor_b0_ppm: Linewidth added where B0 is worst.
        excess: Range of the true noise over the stated one, drawn per acquisition uniformly in the logarithm (the
            Cramér-Rao bound is a lower bound).
        excess_largest: The true noise is at most this share of a map's median.
        excess_field_sd: SD of the logarithm of a smooth field that the excess follows.
        noise_tail: SD of the logarithm of the amplitude of each voxel's noise, which makes its tails heavy.
        mismatch: Share of acquisitions whose k-space weighting differs from the declared window.
        mismatch_damping: Range of the exponent b of the factor exp(-b r^2) on the line at radius r (1 at the edge).
        mismatch_shift: SD of the shift of the maps, LR voxels.
        silent_background: Share of unmasked acquisitions whose voxels outside the head hold nothing.
        press_size: Range of the size of a PRESS box relative to the field of view.
        press_edge_mm: Range of the width of its logistic edge.
        blur: Share of training items whose object is smooth on the scale of the HR voxel: a reconstruction filter,
            motion, or maps that come from a coarser acquisition than their grid says.
        blur_voxels: Range of the SD of the Gaussian that smooths it, HR voxels; 0.71 resembles a Hamming window over
            the HR grid's k-space (exp(-2.46 r^2) against 0.54 + 0.46 cos(pi r), r = 1 at the edge).
    """

    bias: float = pydantic.Field(0.15, ge=0, lt=1)
    noise: Range = (1.0, 1.0)
    noise_inhomogeneity: float = pydantic.Field(0.5, ge=0)
    fit_gain_sd: float = pydantic.Field(0.0, ge=0)
    cross_talk: float = pydantic.Field(0.0, ge=0)
    spikes: float = pydantic.Field(0.005, ge=0, le=0.2)
    missing: Range = (0.0, 0.05)
    press: float = pydantic.Field(0.0, ge=0, le=1)
    chemical_shift_ppm_mm: float = pydantic.Field(2.0, ge=0)
    lipid: float = pydantic.Field(0.0, ge=0, le=1)
    masked: float = pydantic.Field(1.0, ge=0, le=1)
    poor_b0_ppm: float = pydantic.Field(0.10, ge=0)
    excess: Range = (1.0, 1.0)
    excess_largest: float = pydantic.Field(0.3, gt=0)
    excess_field_sd: float = pydantic.Field(0.0, ge=0)
    noise_tail: float = pydantic.Field(0.0, ge=0, le=1)
    mismatch: float = pydantic.Field(0.0, ge=0, le=1)
    mismatch_damping: Range = (-0.2, 0.6)
    mismatch_shift: float = pydantic.Field(0.08, ge=0)
    silent_background: float = pydantic.Field(0.0, ge=0, le=1)
    press_size: Range = (0.5, 0.85)
    press_edge_mm: Range = (1.5, 4.0)
    blur: float = pydantic.Field(0.0, ge=0, le=1)
    blur_voxels: Range = (0.2, 1.0)


class GuidanceConfig(Settings):
    """The anatomical image as it is in life: where it lies, what it shows, what it lacks.

    Attributes:
        lifelike: False gives every head an aligned T1 image from the same tissue shares as the maps (mrsi-sim v1).
        shift_mm: SD of the displacement per axis; heavy tails (Student, 3 degrees of freedom) are cut at 6 mm.
        turn_deg: SD of the rotation about each axis; tails are cut at 6 degrees.
        aligned: Share of images that lie exactly right.
        distortion_mm: Largest displacement by a smooth distortion in plane.
        wrong: Share of images of another head, another slice, mirrored or upside down.
        contrasts: Shares of T1, T1 with contrast agent, T2, FLAIR and arbitrary contrast.
        partial: Share of images that cover part of the slice.
        bias: Largest factor of the bias field.
        noise: Range of the noise relative to white matter, drawn uniformly in the logarithm.
        lesion_unseen: Share of lesions that the image does not show.
    """

    lifelike: bool = False
    shift_mm: float = pydantic.Field(1.5, ge=0)
    turn_deg: float = pydantic.Field(1.5, ge=0)
    aligned: float = pydantic.Field(0.25, ge=0, le=1)
    distortion_mm: float = pydantic.Field(3.0, ge=0)
    wrong: float = pydantic.Field(0.08, ge=0, le=1)
    contrasts: tuple[float, float, float, float, float] = (0.55, 0.12, 0.12, 0.12, 0.09)
    partial: float = pydantic.Field(0.08, ge=0, le=1)
    bias: float = pydantic.Field(2.0, ge=1)
    noise: Range = (0.005, 0.1)
    lesion_unseen: float = pydantic.Field(0.2, ge=0, le=1)


class BatchConfig(Settings):
    """What a training batch is drawn from.

    Attributes:
        main_grid: The HR matrix of most batches.
        main_grid_share: Share of batches on it; the others draw a factor and an LR matrix, odd ones included.
        lr_matrix: Range of the LR matrix per axis on the other grids.
        largest_hr: Largest HR matrix per axis on the other grids.
        smallest_lr: Smallest LR matrix per axis that a factor may lead to.
        fov_mm: Range of the field of view of head-sized acquisitions.
        lr_voxel_mm: Range of the LR voxel of the other grids.
        thickness_mm: Range of the slice thickness (log-uniform).
        anisotropic: Share of items whose two factors are drawn apart.
        paper_like: Share of items with y = A x_HR, square support, no window, no noise, all voxels trusted.
        noise_free: Share of the remaining items without noise.
        declared: Share of items whose estimate knows support and window; the others take all lines and no window.
        noise_told_sd: SD (of the logarithm) of the noise level that the network is told about the true one.
        anatomy: Share of items that come with an anatomical image.
        small_grid: Exponent e of the LR matrices on the other grids, low (high/low)^(u^e) with uniform u; above 1
            small ones are drawn more often.
        reoriented: Share of items that show coronal or sagittal slices.
        unequal_voxels: Share of items with different voxel sides in plane, up to a factor of 2.
    """

    main_grid: int = pydantic.Field(64, ge=16, le=LARGEST_MATRIX)
    main_grid_share: float = pydantic.Field(0.8, ge=0, le=1)
    lr_matrix: tuple[_Side, _Side] = (8, 40)
    largest_hr: int = pydantic.Field(96, ge=16, le=LARGEST_MATRIX)
    smallest_lr: int = pydantic.Field(6, ge=4, le=LARGEST_MATRIX)
    fov_mm: Range = (180.0, 260.0)
    lr_voxel_mm: Range = (4.0, 20.0)
    thickness_mm: Range = (3.0, 12.0)
    anisotropic: float = pydantic.Field(0.15, ge=0, le=1)
    paper_like: float = pydantic.Field(0.5, ge=0, le=1)
    noise_free: float = pydantic.Field(0.1, ge=0, le=1)
    declared: float = pydantic.Field(0.6, ge=0, le=1)
    noise_told_sd: float = pydantic.Field(0.25, ge=0)
    anatomy: float = pydantic.Field(0.7, ge=0, le=1)
    small_grid: float = pydantic.Field(0.0, ge=0)
    reoriented: float = pydantic.Field(0.0, ge=0, le=1)
    unequal_voxels: float = pydantic.Field(0.0, ge=0, le=1)


class VolumeConfig(Settings):
    """What a simulated volume is: its grid and how it is acquired.

    Attributes:
        metabolites: Maps, canonical names of the concentration table.
        matrix: HR matrix; a multiple of every factor that is asked for.
        fov_mm: Field of view per axis.
        slices: Number of slices.
        thickness_mm: Slice thickness.
        step_mm: Distance of slice centres.
        first_mm: Height of the first slice above the centre of the cerebrum.
        source: ``truth``: y = A x_HR, an inverse crime; ``object``: y from the fine object.
        support: k-space support.
        window: k-space window.
        magnitude: Whether the LR maps are magnitudes.
        through_plane: How the slices come about where they are refined too: phase-encoded along the third axis, or each
            excited by itself, ``thickness_mm`` thick.
        excited_mm: Thickness of the excited slab around the middle of the volume, with soft edges; None for all of it.
    """

    metabolites: tuple[str, ...] = ("tNAA", "tCr", "tCho", "Ins", "Glx", "2HG")
    matrix: tuple[_Side, _Side] = (64, 64)
    fov_mm: Range = (220.0, 220.0)
    slices: int = pydantic.Field(12, ge=1, le=LARGEST_MATRIX)
    thickness_mm: float = pydantic.Field(3.4375, gt=0)
    step_mm: float = pydantic.Field(5.0, gt=0)
    first_mm: float = -18.0
    source: Literal["truth", "object"] = "truth"
    support: Literal["square", "ellipse"] = "square"
    window: Literal["none", "hamming", "hann"] = "none"
    magnitude: bool = False
    through_plane: Literal["encoded", "slices"] = "encoded"
    excited_mm: float | None = pydantic.Field(None, gt=0)


class SimulationConfig(Settings):
    """All settings of mrsi-sim; ``SimulationConfig.preset("training")`` and the other presets are TOML files.

    Attributes:
        name: Name of the preset, printed beside every number made with it.
        precision: ``float32`` for speed (training); ``float64`` gives maps that agree between machines to far below the
            rounding of their published checksums.
        anatomy: Heads and their variation.
        variation: Concentrations.
        tumour: Lesions.
        signal: Scanner and measurement.
        guidance: The anatomical image.
        batch: Training batches.
        volume: Volumes with all quality maps, for evaluation.
        object_voxel_mm: Largest in-plane voxel of the object that HR truth and measurement are made from.
        label_refinement: Tissue labels are looked up at this many places per object voxel and axis.
        object_plane_mm: Largest distance of the planes that a slice is averaged over.
    """

    name: str = "custom"
    precision: Literal["float32", "float64"] = "float64"
    anatomy: AnatomyConfig = AnatomyConfig()
    variation: VariationConfig = VariationConfig()
    tumour: TumourConfig = TumourConfig()
    signal: SignalConfig = SignalConfig()
    guidance: GuidanceConfig = GuidanceConfig()
    batch: BatchConfig = BatchConfig()
    volume: VolumeConfig = VolumeConfig()
    object_voxel_mm: float = pydantic.Field(1.0, ge=0.1)
    label_refinement: int = pydantic.Field(1, ge=1, le=5)
    object_plane_mm: float = pydantic.Field(1.0, ge=0.1)

    def whole_brain(self) -> Self:
        """The same subjects measured as a whole brain: 32x42x22 voxels of 5 mm at a scale of 2,2,2."""
        volume = self.volume.model_copy(
            update={
                "matrix": (64, 84),
                "fov_mm": (160.0, 210.0),
                "slices": 22,
                "step_mm": 5.0,
                "thickness_mm": 5.0,
                "first_mm": -52.5,
                "excited_mm": 104.0,
            }
        )
        return self.model_copy(update={"volume": volume})

    @classmethod
    def preset(cls, name: str) -> Self:
        """Reads one of the presets that come with the package.

        Raises:
            ConfigError: There is no preset of that name; the message lists them.
        """
        folder = resources.files("mrsi_fast.simulation") / "presets"
        names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
        if name not in names:
            raise ConfigError(f"There is no simulation preset {name!r}; the presets are {', '.join(names)}.")
        with resources.as_file(folder / f"{name}.toml") as path:
            return cls.load(path)
