"""Seven densities on the plane as Gray-coded bits: discrete density estimation against a known truth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from gmbench.errors import MissingCapability
from gmbench.estimate import Estimate
from gmbench.metrics.ess import ess_per_evaluation
from gmbench.metrics.log_partition import enumerate_log_partition, stratified_importance
from gmbench.metrics.mmd2 import Kernel, exp_hamming, mmd2_groups, permutation_null, rbf
from gmbench.metrics.total_variation import total_variation, total_variation_null
from gmbench.model import Data, HasEnergy, offers
from gmbench.plugin import TaskCard
from gmbench.randomness import stream
from gmbench.samplers.chain import run_chain
from gmbench.samplers.target import FunctionTarget
from gmbench.spaces import BinaryVector
from gmbench.task import Context, Measurement, Task

from ..likelihoods import LogZ, likelihood_measurement
from .cells import cell_centres, cell_index, cell_masses
from .code_distribution import CodeDistribution
from .pictures import energy_map, scatter_beside_data

MAP_CELLS = 192  # cells along an axis of the energy's picture


class Synthetic2D(Task):
    """The task in one variant; see the card for the protocol."""

    space: BinaryVector

    def __init__(self, card: TaskCard, variant: Mapping[str, str], track: str) -> None:
        super().__init__(card, variant, track)
        self.bits = int(self.variant.get("bits", "32"))
        self.truth = CodeDistribution.of(self.variant["density"], self.bits)
        self.code = self.truth.code
        self.space = BinaryVector(self.bits, layout=(2, self.bits // 2))

    def data(self, seed: int) -> Data:
        names = ("synthetic2d/data", self.card.version, self.variant["density"], seed)
        validation = self.truth.sample(self.card.protocol["num_validation"], rng=stream(*names, "validation"))
        if self.variant["n"] == "online":
            return Data(self.space, None, lambda num, rng: self.truth.sample(num, rng=rng), validation, self.truth)
        num_train = {"10k": 10_000, "100k": 100_000}[self.variant["n"]]
        train = self.truth.sample(num_train, rng=stream(*names, "train"))

        def draw(num: int, rng: torch.Generator) -> Tensor:
            return train[torch.randint(num_train, (num,), generator=rng)]

        return Data(self.space, train, draw, validation, self.truth)

    def measure_excess_nats(self, model: Any, context: Context) -> Measurement:
        x, log_p = self._test_points(self.budget["num_test"])
        found = likelihood_measurement(model, x, log_p, partial(self._log_z_of, rng=context.rng), context.rng)
        found.estimates["nll.floor"] = Estimate(value=self.truth.entropy, kind="exact", note="entropy of the truth")
        if (picture := self._energy_picture(model, context.rng.device)) is not None:
            found.pictures["energy"] = picture
        return found

    def measure_mmd2(self, model: Any, context: Context) -> Measurement:
        groups, size = self.budget["num_groups"], self.budget["group_size"]
        x, y = context.draws(groups * size), self._test_points(groups * size)[0]
        plane_x, plane_y = self.code.decode(x), self.code.decode(y)
        kernels: dict[str, tuple[Kernel, Tensor, Tensor]] = {"exp_hamming.bw0.1": (exp_hamming(0.1), x, y)}
        for bandwidth in self.card.protocol["rbf_bandwidths"]:
            kernels[f"rbf_plane.bw{bandwidth}"] = (rbf(bandwidth), plane_x, plane_y)
        found: dict[str, Estimate] = {}
        for name, (kernel, of_model, of_data) in kernels.items():
            key = f"mmd2.{name}.{groups}x{size}"
            found[key] = mmd2_groups(of_model.split(size), of_data.split(size), kernel)
            null = permutation_null(
                of_model[:size],
                of_data[:size],
                kernel,
                num_permutations=self.budget["num_permutations"],
                rng=torch.Generator().manual_seed(context.rng.initial_seed()),
            )
            note = f"{self.budget['num_permutations']} relabellings of the first group, whose p is {null.p_value:.3g}"
            found[f"{key}.null_sd"] = Estimate(value=null.sd / groups**0.5, kind="consistent", note=note)
        picture = scatter_beside_data(plane_x, plane_y, self.code.half_width, self.variant["density"])
        return Measurement(found, pictures={"samples": picture})

    def measure_total_variation(self, model: Any, context: Context) -> Measurement:
        num, cells = self.budget["num_groups"] * self.budget["group_size"], self.card.protocol["tv_cells"]
        points = self.code.decode(context.draws(num))
        masses = _cell_masses(self.truth, cells)
        mean, sd = total_variation_null(masses, num, num_draws=200, rng=self.rng("total_variation_null"))
        key = f"total_variation.{cells}x{cells}.n{num}"
        null = Estimate(value=mean, stderr=sd, n=num, kind="upper_bound", note="a perfect sampler; stderr is its sd")
        found = total_variation(cell_index(points, self.code.half_width, cells), masses)
        return Measurement({key: found, f"{key}.null": null})

    def measure_ess(self, model: Any, context: Context) -> Measurement:
        kernel = model.sampler()
        target = FunctionTarget(lambda x: -model.energy(x))
        chains, steps = self.budget["ess_chains"], self.budget["ess_steps"]
        x = torch.randint(2, (chains, self.bits), generator=context.rng, device=context.rng.device).float()
        warm = run_chain(kernel, target, x, steps // 4, rng=context.rng)
        run = run_chain(kernel, target, warm.x, steps, rng=context.rng, record=target.log_prob)
        assert run.series is not None
        return Measurement({"ess_per_evaluation": ess_per_evaluation(run.series, run.num_evaluations)})

    def _log_z_of(self, model: HasEnergy, rng: torch.Generator) -> LogZ:
        def log_f(x: Tensor) -> Tensor:
            return -model.energy(x)

        if self.bits == 16:
            return LogZ(enumerate_log_partition(log_f, self.bits, device=rng.device), "exact")
        # The leading bits of a coordinate say where on the plane a code is: strata of equal squares.
        each = self.budget["log_z_strata_bits"] // 2
        leading = [first + bit for bit in range(each) for first in (0, self.bits // 2)]
        found = stratified_importance(log_f, self.bits, bits=leading, rng=rng, device=rng.device)
        return LogZ(found, f"is2^{2 * each}")

    def _energy_picture(self, model: Any, device: torch.device) -> bytes | None:
        if not offers(model, "energy"):
            return None
        codes = self.code.encode(cell_centres(self.code.half_width, MAP_CELLS)).to(device)
        try:
            values = torch.cat([-model.energy(block).cpu() for block in torch.split(codes, 4096)])
        except MissingCapability:
            return None
        return energy_map(values, self.code.half_width, title=self.variant["density"])

    def _test_points(self, num: int) -> tuple[Tensor, Tensor]:
        return _test_points(self.truth, num, self.rng("test").initial_seed())


# What depends on the truth alone is computed once a process, however many runs share it.
@cache
def _test_points(truth: CodeDistribution, num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Test points (num, bits) and their exact log-probabilities; another `num` gives other points."""
    x = truth.sample(num, rng=torch.Generator().manual_seed(seed))
    return x, truth.log_prob(x)


@cache
def _cell_masses(truth: CodeDistribution, cells: int) -> Tensor:
    return cell_masses(truth.density, truth.code.half_width, cells)
