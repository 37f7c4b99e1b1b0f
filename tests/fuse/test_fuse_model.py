"""Random operations on a real mount, on the local disk and on a model in dicts: whatever can be seen is the same.

The daemon is stopped, killed and started in between. Walks are long and quick to find something, Hypothesis makes
what it finds short. `DISFS_MODEL_EXAMPLES` (for Hypothesis) and `DISFS_MODEL_STEPS` (of a walk) make a longer run,
which is another one each time unless `DISFS_MODEL_SEED` is set.
"""

from __future__ import annotations

import os
import random
import secrets
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from support.kept_disk import kept_disk
from support.model_operations import OPERATIONS, Operations
from support.model_trial import UMASK, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from support.kept_disk import KeptDisk

EXAMPLES = int(os.environ.get("DISFS_MODEL_EXAMPLES", "0"))
STEPS = int(os.environ.get("DISFS_MODEL_STEPS", "0"))
SEED = int(os.environ.get("DISFS_MODEL_SEED", "0"))
USUAL_STEPS, USUAL_EXAMPLES = 150, 4

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("known_umask")]


class FilesystemMachine(RuleBasedStateMachine):
    """A rule for each of `OPERATIONS`."""

    def __init__(self, disk: KeptDisk, local: Path, number: int) -> None:
        super().__init__()
        self.trial = Trial(disk, local, f"t{number}")
        self.operations = Operations(self.trial)

    @initialize(first=st.sampled_from(["a", "b"]))
    def begin(self, first: str) -> None:
        """Something to work on."""
        self.operations.begin(first)

    def teardown(self) -> None:
        """Nothing is left behind."""
        self.trial.end()


def _rule_of(name: str, pools: dict[str, Sequence[Any]]) -> Callable[..., None]:
    def run(self: FilesystemMachine, **arguments: Any) -> None:
        getattr(self.operations, name)(**arguments)

    run.__name__ = name
    strategies: dict[str, Any] = {key: st.sampled_from(pool) for key, pool in pools.items()}
    decorate: Callable[[Callable[..., None]], Callable[..., None]] = rule(**strategies)
    return decorate(run)


for _name, _pools in OPERATIONS.items():
    setattr(FilesystemMachine, _name, _rule_of(_name, _pools))


@pytest.fixture
def known_umask() -> Iterator[None]:
    """The umask that the model counts with."""
    old = os.umask(UMASK)
    yield
    os.umask(old)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[KeptDisk]:
    """A mount that keeps what it holds, and a directory on the local disk beside it."""
    (tmp_path / "local").mkdir()
    with kept_disk(tmp_path / "disk") as found:
        yield found


@pytest.mark.timeout(300 + STEPS)
@pytest.mark.parametrize("walk", range(2))
def test_walks_are_the_same_on_the_mount_on_the_local_disk_and_in_the_model(
    tmp_path: Path, disk: KeptDisk, walk: int
) -> None:
    """After each step results, errno, names, links, attributes, times, holes and contents agree, whoever dies."""
    seed = (SEED or secrets.randbits(32) if STEPS else 1) + walk
    trial = Trial(disk, tmp_path / "local", "walk")
    operations = Operations(trial)
    operations.begin()
    try:
        operations.walk(random.Random(seed), STEPS or USUAL_STEPS)
    except Exception as error:
        raise AssertionError(f"DISFS_MODEL_SEED={seed - walk}, the last steps:\n{trial.last_steps()}") from error
    trial.end()


@pytest.mark.timeout(300 + 30 * EXAMPLES)
def test_random_operations_are_the_same_as_on_the_local_disk_and_in_the_model(tmp_path: Path, disk: KeptDisk) -> None:
    """As the walks, by Hypothesis, which makes a failure as short as it can."""
    numbers = iter(range(10**9))

    class Machine(FilesystemMachine):
        def __init__(self) -> None:
            super().__init__(disk, tmp_path / "local", next(numbers))

    chosen = settings(
        max_examples=EXAMPLES or USUAL_EXAMPLES,
        stateful_step_count=60 if EXAMPLES else 30,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    run_state_machine_as_test(hypothesis.seed(SEED)(Machine) if SEED and EXAMPLES else Machine, settings=chosen)
