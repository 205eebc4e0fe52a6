"""Every input belongs to exactly one shard, whoever launches the processes."""

from __future__ import annotations

import pytest

from mrsi_fast.cli.exits import CommandError
from mrsi_fast.cli.shard import shard_of


@pytest.mark.parametrize("count", [1, 2, 5, 12, 13])
def test_shards_share_out_everything_once(count: int) -> None:
    inputs = list(range(12))
    parts = [inputs[index::total] for index, total in (shard_of(f"{one + 1}/{count}", {}) for one in range(count))]
    assert sorted(sum(parts, [])) == inputs
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"}, (2, 4)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "20",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_STEP": "10",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "1",
            },
            (2, 3),
        ),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 2)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, (3, 4)),
    ],
)
def test_launchers(environ: dict[str, str], expected: tuple[int, int]) -> None:
    assert shard_of("auto", environ) == expected
    assert shard_of(None, environ) == (0, 1)  # an array with one input a task is not divided again


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "a/b", "1/0", "-1/4", "", "1/4/2", "auto"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(CommandError, match="--shard"):
        shard_of(text, {"RANK": "x", "WORLD_SIZE": "2", "SLURM_PROCID": "9", "SLURM_NTASKS": "2"})
