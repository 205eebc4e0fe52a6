"""An identity changes with everything that can change a voxel, and with nothing else."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.identity import array_digest, content_digests, differences, identity_record, image_digest
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.resolver import SuperResolver

SHAPE = (12, 12, 1)


def maps(**changes: Any) -> MapSet:
    values = np.random.default_rng(1).uniform(1, 9, (2, *SHAPE)).astype(np.float32)
    first = MapSet(values, np.diag([10.0, 10.0, 12.0, 1.0]), ("tNAA", "tCho"), crlb=np.full_like(values, 5.0))
    return dataclasses.replace(first, **changes)


def record(**changes: Any) -> dict[str, Any]:
    return identity_record(maps(**changes), {}, {"seed": 0}, "model", "1")


def other_value(field: dataclasses.Field, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value * 1.001
    if field.name in ("mask", "lipid"):
        return np.ones(SHAPE, dtype=bool)
    if field.name in ("snr", "fwhm"):
        return np.ones((2, *SHAPE), dtype=np.float32)
    return {"names": ("tNAA", "tCr"), "fwhm_unit": "Hz", "xform_code": 2, "units": "mM"}.get(field.name, f"{value}x")


@pytest.mark.parametrize("field", dataclasses.fields(MapSet), ids=lambda field: field.name)
def test_every_field_of_a_set_of_maps_counts(field: dataclasses.Field) -> None:
    changed = record(**{field.name: other_value(field, getattr(maps(), field.name))})
    assert (changed["sha256"] != record()["sha256"]) == (field.name not in ("source", "warnings", "judged"))


def test_what_differs_is_named() -> None:
    now = maps()
    now.crlb[1] += 1
    other = identity_record(now, {}, {"seed": 1}, "model", "2")
    assert differences(record(), other) == (["crlb of tCho"], ["seed", "version"])


def test_equal_values_have_equal_digests() -> None:
    values = np.array([[1.0, np.nan], [3.0, 4.0]], dtype=np.float32)
    payload = values.copy()
    payload.view(np.uint32)[0, 1] ^= 1  # another NaN
    assert array_digest(values) == array_digest(np.asfortranarray(payload))
    assert len({array_digest(one) for one in (values, values.T, values.astype(np.float64), values.ravel())}) == 4
    assert list(content_digests(maps())) == sorted(content_digests(maps()))


def test_images(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones(SHAPE, np.float32), np.eye(4))
    nib.save(image, tmp_path / "a.nii")
    (tmp_path / "b.nii").write_bytes((tmp_path / "a.nii").read_bytes())
    assert image_digest(tmp_path / "a.nii") == image_digest(tmp_path / "b.nii")
    assert image_digest(image) == image_digest((np.ones(SHAPE, np.float32), np.eye(4)))
    assert image_digest(image) != image_digest((np.ones(SHAPE, np.float32), 2 * np.eye(4)))
    nib.save(nib.Nifti1Pair(np.ones(SHAPE, np.float32), np.eye(4)), tmp_path / "t1.img")
    before = image_digest(tmp_path / "t1.hdr")
    data = bytearray((tmp_path / "t1.img").read_bytes())
    data[-1] ^= 1
    (tmp_path / "t1.img").write_bytes(data)
    assert image_digest(tmp_path / "t1.hdr") != before


OTHER: dict[str, Any] = {
    "scale": 4,
    "samples": 1,
    "steps": 2,
    "seed": 5,
    "data_consistency": "off",
    "anatomy": (np.ones(SHAPE), np.eye(4)),
    "mask": np.arange(144).reshape(SHAPE) > 3,
    "acquisition": {"window": "hamming"},
    "noise": 0.5,
    "keep_filled": True,
}


def test_every_argument_of_a_call_counts(tiny_resolver: SuperResolver) -> None:
    from mrsi_fast.evidence.checks import Checks
    from mrsi_fast.mrsi.quality import TrustRules

    checks = {"evidence": "on", "align": "off", "anatomy_trust": "force", "noise_scale": 2.0, "shrink": "auto"}
    assert set(checks) == {field.name for field in dataclasses.fields(Checks)}
    other = OTHER | {"rules": TrustRules(min_snr=1.0)} | checks
    plain = tiny_resolver.identity(maps())
    changes_nothing = {"progress": print, "sample_folder": "elsewhere"}
    arguments = set(inspect.signature(tiny_resolver.__call__).parameters) | set(checks)
    arguments -= {"maps", "checks", *changes_nothing}
    untried = arguments - set(other)
    for name in sorted(arguments - untried):
        assert tiny_resolver.identity(maps(), **{name: other[name]})["sha256"] != plain["sha256"], name
    for name in sorted(untried):  # arguments that came later: a text is never the default
        assert tiny_resolver.identity(maps(), **{name: "something else"})["sha256"] != plain["sha256"], name
    for name, value in changes_nothing.items():
        assert tiny_resolver.identity(maps(), **{name: value})["sha256"] == plain["sha256"], name
    assert tiny_resolver.identity(maps(), scale="2", acquisition={})["sha256"] == plain["sha256"]


def test_the_result_carries_the_identity_of_its_call(tiny_resolver: SuperResolver, tmp_path: Path) -> None:
    result = tiny_resolver(maps(), samples=0, seed=3)
    assert result.provenance["identity"] == tiny_resolver.identity(maps(), samples=0, seed=3)
    written = result.save(tmp_path)
    again = tiny_resolver(maps(), samples=0, seed=4)
    assert again.save(tmp_path) == written
    other = tiny_resolver(maps(maps=maps().maps * 2), samples=0)
    with pytest.raises(ValueError, match="a result of other maps"):
        other.save(tmp_path)
    assert other.save(tmp_path, overwrite=True) == written


@pytest.fixture(scope="module")
def tiny_resolver() -> SuperResolver:
    import torch

    from mrsi_fast.config import DiffusionConfig, ModelConfig
    from mrsi_fast.models.pretrained import FolderConfig, Pretrained
    from mrsi_fast.models.unet import SelfAttentionUNet

    torch.manual_seed(0)
    shape = ModelConfig(
        widths=(32,),
        encoder_blocks=(1,),
        decoder_blocks=(1,),
        encoder_attention=(True,),
        decoder_attention=(False,),
        embedding_width=32,
    )
    rms = {factor: (0.1,) * len(shape.channels) for factor in ("2", "4", "8")}
    config = FolderConfig(
        name="random",
        model=shape,
        diffusion=DiffusionConfig(residual_rms=rms),
        trained_voxel_mm=(3.0, 20.0),
        trained_grid=(12, 128),
    )
    return SuperResolver(Pretrained(SelfAttentionUNet(shape).eval(), config, "0" * 64, Path("random")), engine="eager")
