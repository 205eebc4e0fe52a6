"""SuperResolver: measured metabolite maps in, maps 2, 4 or 8 times finer out, with what was measured kept in view."""

from __future__ import annotations

import inspect
import os
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrsi_fast._version import __version__
from mrsi_fast.agreement import agreement, outlier_sentences
from mrsi_fast.arguments import (
    acquisition_settings,
    callable_or_none,
    existing_anatomy,
    plain_scale,
    trust_rules,
    whole_number,
)
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.noise import KEY_LIMIT
from mrsi_fast.diffusion.solvers import Solver
from mrsi_fast.engine.choose import choose_engine
from mrsi_fast.engine.job import EngineError
from mrsi_fast.evidence.checks import Checks, ask, shrink, told
from mrsi_fast.evidence.testimony import Evidence
from mrsi_fast.identity import identity_record
from mrsi_fast.models.pretrained import ModelFolderError, Pretrained, load_pretrained
from mrsi_fast.mrsi.consistency import Mode
from mrsi_fast.mrsi.geometry import fov_corner_difference_mm, parse_factors, voxel_sizes_mm
from mrsi_fast.mrsi.io import read_maps, with_mask
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.noise import NoiseLevel
from mrsi_fast.mrsi.planes import back_to, check_matrix, order_with_last, reordered, slices_last
from mrsi_fast.mrsi.quality import TrustRules, restore_nan
from mrsi_fast.posterior import Posterior, Progress, estimate
from mrsi_fast.preparation import AcquisitionSettings, Prepared, prepare, to_slices
from mrsi_fast.result import Result
from mrsi_fast.sampling import Sampler, solver_steps

Float32 = NDArray[np.float32]

_NO_SETTINGS = frozenset({"self", "maps", "mask", "anatomy", "progress"})
"""Arguments of a call that are not settings: the inputs, and what cannot change a voxel."""

LARGE_VOXEL_MM = 15.0


class SuperResolver:
    """Super-resolves MRSI maps with a trained model; create one with ``from_pretrained`` and call it.

    Args:
        pretrained: Network, settings and checksum of a model folder.
        device: "auto", "cpu", "cuda" or "cuda:N" ("gpu" is an alias of "cuda").
        engine: "auto", "eager", "compile", "native" (CPU), "native-amx" (CPU, sums of two bfloat16) or "cuda-graph".
        solver: "dpmpp_2m", "ddim", "heun" or "ddpm".
        threads: CPU threads of PyTorch and the kernels; None leaves PyTorch's setting.

    Raises:
        EngineError: The device or engine is not available here; the message says why.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        device: str = "auto",
        engine: str = "auto",
        solver: Solver = "dpmpp_2m",
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.pretrained, self.solver = pretrained, solver
        self._asked = {"device": device, "engine": engine, "solver": solver}
        self._threads = threads
        self.device, self._device_reason = _choose_device(device)
        self._build()

    def _build(self) -> None:
        """Makes the engine; it belongs to this process."""
        diffusion = self.pretrained.config.diffusion
        denoiser = Denoiser(self.pretrained.network, diffusion.sigma_max).eval()
        self._choice = choose_engine(self._asked["engine"], denoiser, self.device)
        self._sampler = Sampler(self._choice.engine, diffusion)
        self._running, self._process = threading.RLock(), os.getpid()

    def _settle_in_this_process(self) -> None:
        """In a forked child: one thread and a new engine, since OpenMP's other threads did not survive the fork."""
        if self._process != os.getpid():
            torch.set_num_threads(1)
            self._build()

    def __getstate__(self) -> dict[str, Any]:
        """What to pickle: settings, the model's folder and its checksum, never weights or plans."""
        return {
            "folder": self.pretrained.folder,
            "sha256": self.pretrained.sha256,
            "options": {**self._asked, "threads": self._threads},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        pretrained = load_pretrained(state["folder"])
        if pretrained.sha256 != state["sha256"]:
            raise ModelFolderError(
                f"{state['folder']}: holds other weights than when the resolver was pickled. Make a new one from it."
            )
        self.__init__(pretrained, **state["options"])  # type: ignore[misc]

    @classmethod
    def from_pretrained(cls, path: str | Path | None = None, **options: Any) -> SuperResolver:
        """Loads a model folder, or the weights shipped with the package.

        Args:
            path: Folder that ``mrsi-fast train`` wrote; None for the shipped weights.
            **options: ``device``, ``engine``, ``solver``, ``threads``.

        Raises:
            ModelFolderError: The folder is missing, incomplete or damaged.
            EngineError: The device or engine is not available here.
        """
        return cls(load_pretrained(path), **options)

    def explain(self) -> str:
        """Which model, device, engine and kernels run, and why the others do not; one line each."""
        engine = self._choice.engine
        lines = [
            f"model: {self.pretrained.config.name} (sha256 {self.pretrained.sha256[:12]})",
            f"device: {self.device} ({self._device_reason})",
            f"engine: {engine.name} ({engine.reason})",
            f"error of a run: below {engine.error_bound:g} of a map's largest value, against float64",
            *(f"not {name}: {reason}" for name, reason in self._choice.refused.items()),
        ]
        return "\n".join(lines + engine.details())

    def __call__(
        self,
        maps: Any,
        scale: int | str | Sequence[int] = 2,
        samples: int = 0,
        steps: int = 8,
        seed: int = 0,
        data_consistency: Mode = "auto",
        anatomy: Any = None,
        mask: Any = None,
        acquisition: AcquisitionSettings | Mapping[str, Any] | None = None,
        noise: NoiseLevel = None,
        rules: TrustRules | None = None,
        keep_filled: bool = False,
        progress: Progress | None = None,
        **checks: Any,
    ) -> Result:
        """Super-resolves one set of maps; all maps of a slice are one draw, so their ratios are coherent.

        Args:
            maps: A MapSet, a path (file or folder), a NIfTI image, ``(array, affine)``, or a mapping from name to one.
            scale: 2, 4 or 8 in plane, or per array axis such as ``"4,2,1"``; 1 along the slices' axis.
            samples: Posterior samples to draw beside mean and standard deviation, for ratios, probabilities and
                pictures; a model without a head for the deviation needs 8 to tell it.
            steps: Solver steps of a sample.
            seed: Seed of the noise, 0 to 2^63 - 1; results depend on neither batch, file order nor device.
            data_consistency: "auto", "soft", "hard" or "off" (see ``mrsi.consistency``).
            anatomy: Coregistered T1 image, optional.
            mask: Region where the maps are valid, optional.
            acquisition: Declared k-space support and window.
            noise: Noise level of the maps, if known otherwise than by CRLB maps; 0 declares them noise-free.
            rules: Limits of trust.
            keep_filled: Keep the estimate in untrusted voxels instead of NaN.
            progress: Called with (evaluations done, all); raise from it to cancel.
            **checks: ``evidence``, ``align``, ``anatomy_trust``, ``noise_scale``, ``shrink``: what the scan is asked
                about itself before the run, and what follows from it; see ``evidence.checks.Checks``.

        Returns:
            The maps on the finer grid; the field of view does not move.

        Raises:
            MapInputError: The maps cannot be used.
            ValueError: An argument is out of range; the sentence says which and what is allowed.
        """
        samples = whole_number("samples", samples, 0, 1024, "give a whole number, 0 (mean and deviation alone) to 1024")
        steps = whole_number("steps", steps, 1, 1000, "give a whole number, 1 to 1000")
        seed = whole_number("seed", seed, 0, KEY_LIMIT - 1, "give a whole number from 0 to 2^63 - 1")
        acquisition, rules = acquisition_settings(acquisition), trust_rules(rules)
        scale, anatomy = plain_scale(scale), existing_anatomy(anatomy)
        progress = callable_or_none("progress", progress)
        asked = dict(locals())
        started = time.monotonic()
        self._settle_in_this_process()
        inputs = read_maps(maps)
        inputs = inputs if mask is None else with_mask(inputs, mask)
        identity = self._identity(inputs, asked)
        check_matrix(inputs)
        factors, seen = parse_factors(scale, inputs.slice_axis), slices_last(inputs)
        settings = {"data_consistency": data_consistency, "acquisition": acquisition, "noise": noise, "rules": rules}
        turned = tuple(factors[axis] for axis in order_with_last(inputs.slice_axis))
        wanted = Checks(**checks)
        evidence, image, remarks = ask(self, seen, turned, anatomy, settings, 1 + samples * steps, wanted)
        prepared = prepare(seen, turned, data_consistency, acquisition, noise, image, rules)
        prepared = told(prepared, evidence.noise_scale)
        plan = solver_steps(self.solver, steps, self.pretrained.config.diffusion)
        with self._running:  # a plan serves one caller at a time
            found = estimate(prepared, self._sampler, samples, plan, seed, progress)
        if wanted.shrink == "auto" and evidence.maps:
            found = shrink(found, evidence.amplitudes())
        prepared, order = found.prepared, back_to(inputs.slice_axis)
        agreed, alarms = agreement(
            inputs.names, found.consistency, to_slices(found.uncorrected), to_slices(found.mean), order
        )
        outlying = outlier_sentences(inputs.names, found.outliers, order)

        def finish(values: Float32) -> Float32:
            return values if keep_filled else restore_nan(values, prepared.trust.trusted, prepared.factors)

        provenance = self._provenance(found, samples, steps, seed, data_consistency, time.monotonic() - started)
        provenance["maps"] = _map_facts(prepared, agreed)
        provenance["evidence"] = evidence.as_dict() | {"shrink": wanted.shrink}
        provenance["identity"] = identity
        result = Result(
            names=inputs.names,
            mean=finish(found.mean),
            std=finish(found.std),
            samples=None if found.samples is None else np.stack([finish(one) for one in found.samples]),
            zero_fill=finish(prepared.zero_fill),
            affine=prepared.affine,
            lr=seen.maps,
            lr_affine=seen.affine,
            units=inputs.units,
            xform_code=inputs.xform_code,
            provenance=provenance,
            evidence=evidence,
            warnings=remarks + prepared.warnings + self._range_warnings(prepared) + outlying + alarms,
        )
        return _as_given(result, inputs.slice_axis)

    def check(self, maps: Any, scale: Any = 2, anatomy: Any = None, mask: Any = None, **options: Any) -> Evidence:
        """Asks a scan about itself without super-resolving it.

        Args:
            maps: As for a call.
            scale: Likewise; what it refines is what is cut.
            anatomy: Likewise.
            mask: Likewise.
            **options: ``data_consistency``, ``acquisition``, ``noise``, ``rules`` and the checks of a call.

        Returns:
            What its own k-space, cut by 2 and brought back, says of the model, the image and the noise level.

        Raises:
            MapInputError: The maps or the anatomical image cannot be used.
            ValueError: An argument is out of range.
        """
        settings = {
            "data_consistency": options.pop("data_consistency", "auto"),
            "acquisition": acquisition_settings(options.pop("acquisition", None)),
            "noise": options.pop("noise", None),
            "rules": trust_rules(options.pop("rules", None)),
        }
        inputs = read_maps(maps)
        inputs = inputs if mask is None else with_mask(inputs, mask)
        check_matrix(inputs)
        factors = parse_factors(plain_scale(scale), inputs.slice_axis)
        turned = tuple(factors[axis] for axis in order_with_last(inputs.slice_axis))
        wanted = Checks(**options, evidence="on")
        return ask(self, slices_last(inputs), turned, existing_anatomy(anatomy), settings, 1, wanted)[0]

    def identity(self, maps: Any, mask: Any = None, **options: Any) -> dict[str, Any]:
        """What the result of a call with these arguments would be known by; nothing is computed.

        Args:
            maps: As for a call.
            mask: Likewise.
            **options: The other arguments of the call.

        Returns:
            Digests of the inputs, settings, model, version, and ``sha256`` over all: ``provenance["identity"]``.

        Raises:
            MapInputError: The maps cannot be used.
            OSError: The anatomical image cannot be read.
        """
        inputs = read_maps(maps)
        bound = inspect.signature(self.__call__).bind(inputs, **options)
        bound.apply_defaults()
        return self._identity(inputs if mask is None else with_mask(inputs, mask), dict(bound.arguments))

    def _identity(self, inputs: MapSet, asked: dict[str, Any]) -> dict[str, Any]:
        settings = {key: value for key, value in asked.items() if key not in _NO_SETTINGS} | self._asked
        settings["scale"] = parse_factors(settings["scale"], inputs.slice_axis)
        settings |= asdict(Checks(**settings.pop("checks")))
        if isinstance(settings["acquisition"], Mapping):
            settings["acquisition"] = AcquisitionSettings.parse(dict(settings["acquisition"]), "acquisition")
        settings["acquisition"] = settings["acquisition"] or AcquisitionSettings()
        images = {"anatomy": asked.get("anatomy")}
        return identity_record(inputs, images, settings, self.pretrained.sha256, __version__)

    def _range_warnings(self, prepared: Prepared) -> tuple[str, ...]:
        settings, sentences = self.pretrained.config, []
        voxel = [float(size) for size in voxel_sizes_mm(prepared.maps.affine)[:2]]
        if max(voxel) > LARGE_VOXEL_MM:
            sentences.append(
                f"The measured voxels are {max(voxel):.1f} mm wide: above {LARGE_VOXEL_MM:g} mm most is inferred."
            )
        low, high = settings.trained_voxel_mm
        if min(voxel) < low or max(voxel) > high:
            sentences.append(
                f"The measured voxels are {voxel[0]:.1f} x {voxel[1]:.1f} mm; the model was trained on {low:.1f} to "
                f"{high:.1f} mm, so its result may be wrong in ways it was never tested for."
            )
        grid = prepared.volume.z.shape[1:3]
        if min(grid) < settings.trained_grid[0] or max(grid) > settings.trained_grid[1]:
            sentences.append(
                f"The finer grid of {grid[0]} x {grid[1]} voxels lies outside the trained range of "
                f"{settings.trained_grid[0]} to {settings.trained_grid[1]}."
            )
        return tuple(sentences)

    def _provenance(
        self, found: Posterior, samples: int, steps: int, seed: int, mode: Mode, seconds: float
    ) -> dict[str, Any]:
        prepared, engine = found.prepared, self._choice.engine
        maps = prepared.maps
        return {
            "software": {
                "mrsi_fast": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "model": {"name": self.pretrained.config.name, "sha256": self.pretrained.sha256},
            "source": maps.source,
            "units": maps.units,
            "input_grid": {"shape": list(maps.shape), "voxel_mm": list(voxel_sizes_mm(maps.affine))},
            "output_grid": {
                "shape": list(prepared.volume.z.shape[1:]),
                "voxel_mm": list(voxel_sizes_mm(prepared.affine)),
            },
            "factors": list(prepared.factors),
            "fov_corner_difference_mm": fov_corner_difference_mm(
                maps.affine, maps.shape, prepared.affine, prepared.volume.z.shape[1:]
            ),
            "operator": prepared.acquisition.describe(),
            "operator_assumed": prepared.acquisition.assumed,
            "data_consistency": {
                "asked": mode,
                "applied": prepared.consistency.applied,
                "description": found.consistency.describe(),
            },
            "operating_point": "one-step posterior mean",
            "standard_deviation": found.std_source,
            "samples": samples,
            "steps": steps,
            "solver": self.solver,
            "seed": seed,
            "anatomy_used": prepared.volume.anatomy is not None,
            "device": str(self.device),
            "device_reason": self._device_reason,
            "engine": engine.name,
            "engine_reason": engine.reason,
            "engine_error_bound": engine.error_bound,
            "threads": torch.get_num_threads(),
            "seconds": round(seconds, 3),
            "note": "Detail beyond the measured k-space is inferred by a model, not measured. Research use only.",
        }


def _as_given(result: Result, slice_axis: int) -> Result:
    """The result with the slices back on the axis that they were given on, and the facts about the grids with them."""
    result.provenance["slice_axis"] = slice_axis
    if slice_axis == 2:
        return result
    order = back_to(slice_axis)

    def back(values: Float32) -> Float32:
        return np.ascontiguousarray(np.moveaxis(values, -1, slice_axis - 3))

    for grid in ("input_grid", "output_grid"):
        facts = result.provenance[grid]
        result.provenance[grid] = {key: [values[axis] for axis in order] for key, values in facts.items()}
    result.provenance["factors"] = [result.provenance["factors"][axis] for axis in order]
    return replace(
        result,
        mean=back(result.mean),
        std=back(result.std),
        samples=None if result.samples is None else back(result.samples),
        zero_fill=back(result.zero_fill),
        lr=back(result.lr),
        affine=reordered(result.affine, order),
        lr_affine=reordered(result.lr_affine, order),
    )


def _map_facts(prepared: Prepared, agreed: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    trust, facts = prepared.trust, {}
    for index, name in enumerate(prepared.maps.names):
        facts[name] = {
            "content": prepared.content[index],
            "scale": float(prepared.volume.scale[index]),
            "noise_sd": float(prepared.volume.noise[index]),
            "noise_source": prepared.noise_source[index],
            "trusted_voxels": int(trust.trusted[index].sum()),
            "untrusted_in_support": {key: counts[index] for key, counts in trust.counts.items() if counts[index]},
            **agreed[index],
        }
    return facts


def _choose_device(name: str) -> tuple[torch.device, str]:
    wanted = name.replace("gpu", "cuda") if name.startswith("gpu") else name
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"auto: {torch.cuda.get_device_name()}"
        return torch.device("cpu"), "auto: CUDA is not available"
    if wanted == "cpu":
        return torch.device("cpu"), "asked for"
    if not wanted.startswith("cuda"):
        raise EngineError(f"There is no device '{name}'; choose auto, cpu, cuda or cuda:N.")
    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = "CUDA_VISIBLE_DEVICES hides every GPU" if hidden == "" else "PyTorch finds no CUDA device"
        raise EngineError(f"Device '{name}' is not available: {reason}. Use device='cpu'.")
    return torch.device(wanted), "asked for"
