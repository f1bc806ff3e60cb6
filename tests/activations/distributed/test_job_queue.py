"""Ray actors that die: every job is done, a deadly one ends in a sentence."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from affectlens.activations.distributed.job_queue import Crew
from affectlens.core.errors import AffectLensError, DataError

ray: Any = pytest.importorskip("ray")


class Clerk:
    """Notes each job in a folder, and dies of some."""

    def __init__(self, folder: Path, dies_once: tuple[int, ...], dies: tuple[int, ...]) -> None:
        self.folder, self.dies_once, self.dies = folder, dies_once, dies

    def open(self) -> None:
        if -1 in self.dies:
            os._exit(1)

    def work(self, job: int) -> None:
        if job == 99:
            raise DataError("Job 99 cannot be done.")
        marker = self.folder / f"met_{job}"
        if job in self.dies or (job in self.dies_once and not marker.exists()):
            marker.touch()
            time.sleep(0.2)  # so that a second job is under way
            os._exit(1)
        (self.folder / f"done_{job}_{time.time_ns()}").touch()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    # By value: a process that imports this file loads all that it imports, at each start.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield ray
    ray.shutdown()


def crew_of(folder: Path, once: tuple[int, ...] = (), always: tuple[int, ...] = ()) -> Crew:
    actor = ray.remote(Clerk).options(num_cpus=1, max_concurrency=2)

    def hire() -> tuple[Any, Any]:
        hired = actor.remote(folder, once, always)
        return hired, hired.open.remote()

    return Crew(ray, hire, "1 CPU")


def run(crew: Crew, jobs: range | list[int], workers: int = 2) -> Counter[int]:
    done = Counter[int]()
    crew.run(
        jobs,
        workers=workers,
        done=lambda job: done.update([job]),
        name=lambda job: f"job {job}",
    )
    return done


def test_jobs_of_the_dead_are_done_by_others(cluster: Any, tmp_path: Path) -> None:
    done = run(crew_of(tmp_path, once=(3, 8)), range(12))
    assert done == Counter(range(12))
    assert {int(path.name.split("_")[1]) for path in tmp_path.glob("done_*")} == set(range(12))


def test_a_deadly_job_is_given_up_in_a_sentence(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(AffectLensError, match=r"3 Ray workers were lost at job 5, .*memory"):
        run(crew_of(tmp_path, always=(5,)), range(8), workers=1)


def test_actors_that_never_start_are_given_up(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(AffectLensError, match="lost at starting"):
        run(crew_of(tmp_path, always=(-1,)), range(4), workers=1)


def test_an_error_of_ours_comes_out_as_it_was_and_ends_all_actors(
    cluster: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"^Job 99 cannot be done\.$"):
        run(crew_of(tmp_path), [1, 99, *range(2, 400)])
    seen = len(list(tmp_path.glob("done_*")))
    time.sleep(0.5)
    assert len(list(tmp_path.glob("done_*"))) == seen
