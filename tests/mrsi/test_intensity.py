"""Intensities of anatomical images: every usual way of storing the same T1 reaches the network as the same picture."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from mrsi_fast.mrsi.anatomy import resample_anatomy
from mrsi_fast.mrsi.conditioning import standardise_anatomy
from mrsi_fast.mrsi.intensity import without_padding

AFFINE = np.diag([1.0, 1, 1, 1])
SHAPE = (40, 44, 12)


def head():
    """A T1-like head: CSF 0.25, grey matter 0.6, white matter 1 (times 800), texture, and 0 outside."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    radius = np.sqrt((x / 0.8) ** 2 + (y / 0.85) ** 2)
    tissue = np.select([radius < 0.25, radius < 0.65, radius < 0.9], [0.25, 1.0, 0.6], 0.25)
    noise = 1 + 0.05 * np.random.default_rng(0).normal(size=SHAPE)
    brain = radius < 1
    return np.where(brain, 800 * tissue * noise, 0).astype(np.float32), brain


def seen(image, affine=AFFINE, region=None):
    """What the network sees: on a grid of 4 mm, standardised slice by slice."""
    on_grid = resample_anatomy(
        (np.asarray(image, np.float32), affine), np.diag([4.0, 4, 4, 1]) + _half(), (10, 11, 3), region
    )
    return np.stack([standardise_anatomy(one) for one in np.moveaxis(on_grid.image, -1, 0)], axis=-1)


def _half():
    shift = np.zeros((4, 4))
    shift[:3, 3] = 1.5
    return shift


T1, BRAIN = head()
MEAN, SD = T1[BRAIN].mean(), T1[BRAIN].std()
EXACT = {
    "scaled": T1 * 0.01,
    "scaled to tiny numbers": T1 * 1e-12,
    "scaled to huge numbers": T1 * 1e20,
    "offset of unsigned storage": T1 + 1000,
    "z-scored as a whole": (T1 - T1.mean()) / T1.std(),
    "NaN outside": np.where(BRAIN, T1, np.nan),
    "infinity outside": np.where(BRAIN, T1, -np.inf),
    "offset, then padded with 0 around": np.where(np.arange(SHAPE[0])[:, None, None] < 2, 0, T1 + 1000),
}
CLOSE = {
    "z-scored in the brain, 0 outside": np.where(BRAIN, (T1 - MEAN) / SD, 0),
    "z-scored in the brain, NaN outside": np.where(BRAIN, (T1 - MEAN) / SD, np.nan),
    "padded with -1024": np.where(BRAIN, T1, -1024),
    "padded with -32768": np.where(BRAIN, T1, -32768),
}


@pytest.mark.parametrize("kind", EXACT)
def test_the_same_picture(kind):
    np.testing.assert_allclose(seen(EXACT[kind]), seen(T1), atol=2e-3)


@pytest.mark.parametrize("offset", [500.0, 5000.0, -300.0])
def test_an_offset_under_noisy_air_is_found(offset):
    """No value of the air is more frequent than another; its level tells."""
    air = T1 + np.abs(4 * np.random.default_rng(1).normal(size=SHAPE)).astype(np.float32)
    assert np.abs(seen(air + offset) - seen(air))[BRAIN[::4, ::4, ::4]].max() < 0.02


@pytest.mark.parametrize("kind", [*EXACT, *CLOSE])
def test_twice_is_as_once(kind):
    """The self-test and the run both bring an image to this form, one after the other."""
    image = (EXACT | CLOSE)[kind].astype(np.float32)
    once = without_padding(image)
    np.testing.assert_allclose(without_padding(once), once, rtol=1e-6)


@pytest.mark.parametrize("kind", CLOSE)
def test_nearly_the_same_picture_where_the_zero_is_lost(kind):
    """Voxels at the edge of the head are averages with the padding, whose place in the range is a guess."""
    inner = np.zeros((10, 11, 3), bool)
    core = ndimage.binary_erosion(BRAIN, np.ones((5, 5, 1))).reshape(10, 4, 11, 4, 3, 4).all(axis=(1, 3, 5))
    inner[core] = True
    got, plain = seen(CLOSE[kind])[inner], seen(T1)[inner]
    assert np.corrcoef(got, plain)[0, 1] > 0.999
    assert np.abs(got - plain).mean() < 0.15


def test_an_image_of_the_usual_form_keeps_its_values():
    np.testing.assert_array_equal(without_padding(T1), T1)
    air = T1 + np.abs(np.random.default_rng(1).normal(size=SHAPE)).astype(np.float32)
    np.testing.assert_array_equal(without_padding(air), air)


def test_a_bright_scalp_does_not_dim_the_brain():
    ring = ndimage.binary_dilation(BRAIN, iterations=7) & ~ndimage.binary_dilation(BRAIN, iterations=1)
    bright = np.where(ring, 4.0 * T1.max() * np.random.default_rng(2).uniform(0.8, 1.2, SHAPE), T1)
    region = BRAIN.reshape(10, 4, 11, 4, 3, 4).mean(axis=(1, 3, 5)) > 0.5
    loss = [np.abs(seen(bright, region=one)[region] - seen(T1, region=region)[region]).mean() for one in (None, region)]
    assert loss[1] < 0.6 * loss[0]


def test_images_without_anatomy_are_left_to_their_checks():
    assert (without_padding(np.full(SHAPE, np.nan, np.float32)) == 0).all()
    assert (without_padding(np.full(SHAPE, 7.0, np.float32)) == 7).all()


def test_any_orientation_gives_the_same_picture():
    image = nib.Nifti1Image(T1, AFFINE)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("PSR"))
    np.testing.assert_allclose(seen(turned.get_fdata(), turned.affine), seen(T1), atol=1e-5)
