"""SuperResolver: measured metabolite maps in, maps 2, 4 or 8 times finer out, with what was measured kept in view."""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrsi_fast._version import __version__
from mrsi_fast.agreement import Departure, agreement, departure, outlier_sentences
from mrsi_fast.arguments import Asked, callable_or_none
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.solvers import Solver
from mrsi_fast.engine.choose import choose_engine
from mrsi_fast.engine.device import choose_device
from mrsi_fast.evidence.checks import ask, disbelieved
from mrsi_fast.evidence.testimony import Evidence
from mrsi_fast.identity import identity_record
from mrsi_fast.memory import check_memory, return_freed
from mrsi_fast.models.pretrained import ModelFolderError, Pretrained, load_pretrained
from mrsi_fast.mrsi.consistency import Mode
from mrsi_fast.mrsi.declared_size import refuse_by_headers
from mrsi_fast.mrsi.geometry import parse_factors
from mrsi_fast.mrsi.io import read_maps, with_mask
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.noise import NoiseLevel
from mrsi_fast.mrsi.planes import back_to, check_matrix, order_with_last, reordered, slices_back, slices_last
from mrsi_fast.mrsi.quality import TrustRules, put_nan
from mrsi_fast.posterior import Counter, Draws, Posterior, Progress, Spread, estimate
from mrsi_fast.preparation import AcquisitionSettings, Prepared, prepare
from mrsi_fast.provenance import map_facts, range_warnings, run_record
from mrsi_fast.result import Result
from mrsi_fast.sample_store import SampleStore
from mrsi_fast.sampling import Sampler, solver_steps

Float32 = NDArray[np.float32]


class SuperResolver:
    """Super-resolves MRSI maps with a trained model; create one with ``from_pretrained`` and call it.

    Args:
        pretrained: Network, settings and checksum of a model folder.
        device: "auto", "cpu", "cuda" or "cuda:N" ("gpu" is an alias of "cuda").
        engine: "auto", "eager", "compile", "native" (CPU), "native-amx" (CPU, sums of two bfloat16) or "cuda-graph".
        solver: "dpmpp_2m", "ddim", "heun" or "ddpm".
        threads: CPU threads of PyTorch and the kernels; None leaves PyTorch's setting.

    Raises:
        EngineError: The device or engine is not available here; the message gives the reason.
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
        self.device, self._device_reason = choose_device(device)
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
            f"error of an evaluation or a run: below {engine.error_bound:g} of a map's largest value, against float64",
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
        sample_folder: str | os.PathLike[str] | None = None,
        **checks: Any,
    ) -> Result:
        """Super-resolves one set of maps; all maps of a slice are one draw, so their ratios are coherent.

        Slices run in batches and samples one after the other, so the network's memory grows with neither. The result's
        arrays do: ``mean``, ``std`` and ``zero_fill`` with the slices, ``samples`` with slices and samples, unless
        ``sample_folder`` keeps the samples in a file.

        Args:
            maps: A MapSet, a path (file or folder), a NIfTI image, ``(array, affine)``, or a mapping from name to one.
            scale: 2, 4 or 8 in plane, or per array axis such as ``"4,2,1"``; ``(2, 2, 2)`` refines the slices too, 2 or
                4 times, in three passes over planes of all directions (see ``three_planes``).
            samples: Posterior samples to draw beside mean and standard deviation, for ratios, probabilities and
                pictures; a model without a head for the deviation needs 8 to estimate it.
            steps: Solver steps of a sample.
            seed: Seed of the noise, 0 to 2^63 - 1; results depend on neither batch, file order nor device.
            data_consistency: "auto", "soft", "hard" or "off" (see ``mrsi.consistency``).
            anatomy: Coregistered T1 image, optional.
            mask: Region where the maps are valid, optional.
            acquisition: Declared k-space support and window, and how the slices came about.
            noise: Noise level of the maps, if known otherwise than by CRLB maps; 0 declares them noise-free.
            rules: Limits of trust.
            keep_filled: Keep the estimate in untrusted voxels instead of NaN.
            progress: Called with (evaluations done, all); raise from it to cancel.
            sample_folder: Folder for a temporary file that holds the samples in place of memory; ``Result.samples`` is
                then a read-only memory map of it, and the file is gone with the map.
            **checks: ``evidence``, ``align``, ``anatomy_trust``, ``noise_scale``, ``shrink``: what the scan is asked
                about itself before the run, and what follows from it; see ``evidence.checks.Checks``.

        Returns:
            The maps on the finer grid; the field of view does not move.

        Raises:
            MapInputError: The maps cannot be used.
            NotFinite: The network made no number of a voxel (see ``posterior``).
            NotEnoughMemory: The run would need more memory than there is (see ``memory``).
            OSError: The file of the samples cannot be written.
            ValueError: An argument is out of range; the message names it and the allowed values.
        """
        asked = Asked.of(locals())
        progress = callable_or_none("progress", progress)
        self._settle_in_this_process()
        with SampleStore(asked.samples, sample_folder) as store:
            return self._run(_maps_that_fit(maps, mask, asked, store), asked, progress, store)

    def _run(self, inputs: MapSet, asked: Asked, progress: Progress | None, store: SampleStore) -> Result:
        """Evidence, preparation, estimate, agreement, result: the parts of a call in their order."""
        started, identity = time.monotonic(), self._identity(inputs, asked)
        check_matrix(inputs)
        seen, factors = slices_last(inputs), _factors(asked.scale, inputs.slice_axis)
        check_memory(len(seen.names), seen.shape, factors, 0 if store.on_disk else asked.samples)
        cost = 1 + asked.samples * asked.steps
        evidence, image, remarks = ask(self._mean, seen, factors, asked.anatomy, asked.settings(), cost, asked.checks)
        found, after = self._posterior(
            prepare(seen, factors, anatomy=image, noise_scale=evidence.noise_scale, **asked.settings()),
            asked,
            evidence.amplitudes() if asked.checks.shrink == "auto" and evidence.maps else None,
            progress,
            lambda one: store.add(slices_back(one, inputs.slice_axis)),
        )
        return_freed()
        prepared, order = found.prepared, back_to(inputs.slice_axis)
        agreed, alarms = agreement(
            inputs.names,
            found.consistency,
            found.before,
            after,
            order,
            [source in ("crlb", "given") for source in prepared.noise_source],
        )
        provenance = run_record(found, asked, self._runner(), time.monotonic() - started)
        provenance["maps"] = map_facts(prepared, agreed)
        provenance["evidence"] = evidence.as_dict() | {"shrink": asked.checks.shrink}
        provenance["identity"] = identity
        result = Result(
            names=inputs.names,
            mean=_finished(found.mean, prepared, asked),
            std=_finished(found.std, prepared, asked),
            samples=store.array(),
            zero_fill=_finished(prepared.zero_fill(prepared.volume.z), prepared, asked),  # z has done its work
            affine=prepared.affine,
            lr=seen.maps,
            lr_affine=seen.affine,
            units=inputs.units,
            xform_code=inputs.xform_code,
            provenance=provenance,
            evidence=evidence,
            warnings=(
                *remarks,
                *prepared.warnings,
                *range_warnings(prepared, self.pretrained.config),
                *outlier_sentences(inputs.names, found.outliers, order),
                *alarms,
                *evidence.alarms(),
            ),
        )
        return _as_given(result, inputs.slice_axis)

    def _mean(self, maps: MapSet, scale: Sequence[int], **settings: Any) -> Float32:
        """The one-step mean [M, X, Y, Z] after data consistency, without what a result says beside it."""
        with self._running:
            return estimate(prepare(maps, scale, **settings), self._sampler, Counter(None)).mean

    def _posterior(
        self,
        prepared: Prepared,
        asked: Asked,
        amplitudes: NDArray[np.float64] | None,
        progress: Progress | None,
        keep: Callable[[Float32], None],
    ) -> tuple[Posterior, Departure]:
        """Mean and deviation, and how that mean departs from the data; each sample goes to ``keep`` as it is drawn."""
        return_freed()
        plan = solver_steps(self.solver, asked.steps, self.pretrained.config.diffusion)
        draws, counter, spread = Draws(asked.samples, plan, asked.seed), Counter(progress), Spread()
        with self._running:  # a plan serves one caller at a time
            counter.expect(draws.evaluations(prepared, self._sampler))
            found = estimate(prepared, self._sampler, counter)
            taken = None if amplitudes is None else disbelieved(found.mean, found.prepared.acquisition, amplitudes)

            def less(values: Float32) -> Float32:
                return values if taken is None else (values - taken).astype(np.float32)

            for one in draws.of(found, self._sampler, counter):
                if not self._sampler.tells_spread:
                    spread.add(one)
                keep(_finished(less(one), found.prepared, asked))
                del one  # else it lives until the next one is whole
        found = replace(spread.given_to(found), mean=less(found.mean))
        return found, departure(found.consistency, found.mean)

    def check(self, maps: Any, scale: Any = 2, anatomy: Any = None, mask: Any = None, **options: Any) -> Evidence:
        """Asks a scan about itself without super-resolving it.

        Args:
            maps: As for a call.
            scale: Likewise; what it refines is what is cut.
            anatomy: Likewise.
            mask: Likewise.
            **options: ``data_consistency``, ``acquisition``, ``noise``, ``rules`` and the checks of a call.

        Returns:
            The self-test of the model, the image and the noise level on the scan's own k-space.

        Raises:
            MapInputError: The maps or the anatomical image cannot be used.
            ValueError: An argument is out of range.
        """
        asked = self._bound(scale=scale, anatomy=anatomy, **options | {"evidence": "on"})
        self._settle_in_this_process()
        inputs = _maps_in(maps, mask)
        check_matrix(inputs)
        seen, factors = slices_last(inputs), _factors(asked.scale, inputs.slice_axis)
        found, *_ = ask(self._mean, seen, factors, asked.anatomy, asked.settings(), 1, asked.checks)
        return found.as_given(inputs.slice_axis)

    def identity(self, maps: Any, mask: Any = None, **options: Any) -> dict[str, Any]:
        """What the result of a call with these arguments would be known by; nothing is computed.

        Args:
            maps: As for a call.
            mask: Likewise.
            **options: The other arguments of the call.

        Returns:
            Digests of the inputs, settings, model, version, and ``sha256`` over all: ``provenance["identity"]``.

        Raises:
            MapInputError: The maps cannot be used, or there is no such anatomical image.
            OSError: The anatomical image cannot be read.
            ValueError: An argument is out of range.
        """
        return self._identity(_maps_in(maps, mask), self._bound(**options))

    def _bound(self, **options: Any) -> Asked:
        """The request of a call with these options and the defaults of the others."""
        bound = inspect.signature(self.__call__).bind(None, **options)
        bound.apply_defaults()
        return Asked.of(bound.arguments)

    def _identity(self, inputs: MapSet, asked: Asked) -> dict[str, Any]:
        settings = {one.name: getattr(asked, one.name) for one in fields(asked)} | asdict(asked.checks) | self._asked
        settings["scale"] = parse_factors(asked.scale, inputs.slice_axis)
        images = {"anatomy": settings.pop("anatomy")}
        del settings["checks"]
        return identity_record(inputs, images, settings, self.pretrained.digest, __version__)

    def _runner(self) -> dict[str, Any]:
        """What computes: facts for the record."""
        engine = self._choice.engine
        return {
            "model": {"name": self.pretrained.config.name, "sha256": self.pretrained.sha256},
            "solver": self.solver,
            "device": str(self.device),
            "device_reason": self._device_reason,
            "engine": engine.name,
            "engine_reason": engine.reason,
            "engine_error_bound": engine.error_bound,
        }


def _maps_that_fit(maps: Any, mask: Any, asked: Asked, store: SampleStore) -> MapSet:
    refuse_by_headers(maps, asked.scale, 0 if store.on_disk else asked.samples)
    return _maps_in(maps, mask)


def _maps_in(maps: Any, mask: Any) -> MapSet:
    inputs = read_maps(maps)
    return inputs if mask is None else with_mask(inputs, mask)


def _factors(scale: Any, slice_axis: int) -> tuple[int, ...]:
    """Factors of the axes with the slices' axis last."""
    factors = parse_factors(scale, slice_axis)
    return tuple(factors[axis] for axis in order_with_last(slice_axis))


def _finished(values: Float32, prepared: Prepared, asked: Asked) -> Float32:
    """Maps as the user gets them, in their place: NaN where the data were not trusted, unless these are to be kept."""
    if not asked.keep_filled:
        put_nan(values, prepared.trust.trusted, prepared.factors)
    return values


def _as_given(result: Result, slice_axis: int) -> Result:
    """The result with the slices back on the axis that they were given on, and the facts about the grids with them.

    Samples are there already.
    """
    result.provenance["slice_axis"] = slice_axis
    if slice_axis == 2:
        return result
    order = back_to(slice_axis)

    def back(values: Float32) -> Float32:
        return slices_back(values, slice_axis)

    for grid in ("input_grid", "output_grid"):
        facts = result.provenance[grid]
        result.provenance[grid] = {key: [values[axis] for axis in order] for key, values in facts.items()}
    result.provenance["factors"] = [result.provenance["factors"][axis] for axis in order]
    return replace(
        result,
        mean=back(result.mean),
        std=back(result.std),
        zero_fill=back(result.zero_fill),
        lr=back(result.lr),
        affine=reordered(result.affine, order),
        lr_affine=reordered(result.lr_affine, order),
        evidence=None if result.evidence is None else result.evidence.as_given(slice_axis),
    )
