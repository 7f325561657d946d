"""The CPU time of a step of what `published.toml` of dynamic_mnist lists as not run (select with -m benchmark).

    GMBENCH_DATA=… OMP_NUM_THREADS=1 pytest -m benchmark tests/benchmarks/test_left_out_steps.py

The card's own config and data, the first step left out; `extra_info` has the seconds of each of the others' mean.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from gmbench.data.local import status
from gmbench.plan import Request, make_plan
from gmbench.plugin import TaskCard
from gmbench.published import read_published
from gmbench.registry import discover
from gmbench.runner import data_for, make_task, new_model
from gmbench.training import Gradient, Interrupted, Trainer

VARIANT = "data=mnist"


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("model", "track", "num_steps"), [("ebm_gfn", "paper", 6), ("ebm_resnet", "paper", 2), ("ebm_resnet", "medium", 10)]
)
def test_step_of_what_was_left_out(benchmark: Any, model: str, track: str, num_steps: int) -> None:
    plan = make_plan(Request("dynamic_mnist", model, VARIANT, track))
    if any(status(file) != "ok" for file in plan.task_card.data if file.needed_by(plan.variant.factors)):
        pytest.skip("the files of MNIST are not here")
    data, network = data_for(plan, make_task(plan)), new_model(plan)
    [stated] = {stage.num_steps for stage in network.stages(data) if isinstance(stage, Gradient)} - {1}
    done: list[float] = []

    def should_stop() -> bool:
        done.append(time.process_time())
        return len(done) > num_steps + 1

    def call() -> None:
        with pytest.raises(Interrupted):
            Trainer(should_stop=should_stop).fit(network, data)

    benchmark.pedantic(call, rounds=1)
    benchmark.extra_info["step_seconds"] = (done[num_steps] - done[0]) / num_steps
    card = discover().task("dynamic_mnist").card
    assert isinstance(card, TaskCard)
    listed = [row for row in read_published(plan.task.folder, card).left_out if row.model.startswith(model)]
    assert stated in {row.num_steps for row in listed}  # the steps that the table multiplies with
