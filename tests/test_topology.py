"""Topologies as data: every packet has its way, every ring one producer and one consumer."""

from __future__ import annotations

import pytest

from wgmp.topology import MAX_QUEUES, MAX_ROLES, MAX_WORKERS, Shape, Topology, build, choose

SHAPES = [(Shape.PIPELINE, 1), (Shape.PIPELINE, 3), (Shape.COMPACT, 1), (Shape.COMPACT, 4)]


def _ways(topology: Topology) -> set[tuple[str, str]]:
    return {(row.producer, row.consumer) for row in topology.rings}


@pytest.mark.parametrize(("shape", "workers"), SHAPES)
def test_every_worker_is_reached_by_and_reaches_everybody(shape: Shape, workers: int) -> None:
    topology = choose(shape, workers, cores=4)
    ways = _ways(topology)
    for number in range(workers):
        worker = f"worker{number}"
        assert {("tun_reader", worker), ("udp_reader", worker), ("admission", worker)} <= ways
        assert {(worker, "udp_writer"), (worker, "tun_writer")} <= ways
    assert {("udp_reader", "admission"), ("admission", "udp_writer")} <= ways
    assert len(ways) == len(topology.rings) == 2 + 5 * workers


@pytest.mark.parametrize(("shape", "workers"), SHAPES)
def test_every_role_runs_in_exactly_one_process(shape: Shape, workers: int) -> None:
    topology = choose(shape, workers, cores=4)
    placed = [role for process in topology.processes for role in process.roles]
    assert sorted(placed) == sorted(row.name for row in topology.roles)
    assert len(placed) == len(set(placed))


def test_each_of_several_queues_has_a_reader_with_a_process_and_a_ring_to_every_worker() -> None:
    topology = choose(Shape.AUTO, 3, cores=1, queues=2)
    readers = [(row.name, row.number) for row in topology.roles if row.kind == "tun_reader"]
    assert readers == [("tun_reader0", 0), ("tun_reader1", 1)]
    ways = _ways(topology)
    for name, _ in readers:
        assert topology.process_of(name) == name
        assert {(name, f"worker{number}") for number in range(3)} <= ways
    assert len(ways) == len(topology.rings) == 2 + 6 * 3
    assert topology.queues == 2
    assert len(build(Shape.PIPELINE, MAX_WORKERS, MAX_QUEUES).roles) == MAX_ROLES


def test_compact_with_one_worker_is_one_process() -> None:
    assert len(build(Shape.COMPACT, 1).processes) == 1


@pytest.mark.parametrize(
    ("cores", "shape", "workers"),
    [(1, Shape.COMPACT, 1), (2, Shape.COMPACT, 1), (8, Shape.PIPELINE, 7)],
)
def test_auto_goes_by_the_cores(cores: int, shape: Shape, workers: int) -> None:
    topology = choose(Shape.AUTO, None, cores)
    assert (topology.shape, topology.workers) == (shape, workers)
