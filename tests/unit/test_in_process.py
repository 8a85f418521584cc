"""Graphs on the calling thread: the same elements, calls and counters as with Beam's own local runner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsIter, AsList, TaggedOutput
from apache_beam.transforms.userstate import BagStateSpec
from apache_beam.transforms.window import FixedWindows, GlobalWindows

from pipelines.run.jobs import in_process
from pipelines.run.jobs.job_watch import counters_of
from transforms.support import metrics

SEEN: dict[str, list[Any]] = defaultdict(list)
"""What reached the end of a graph, by name."""
CALLS: list[str] = []
"""Of the methods of a `Spy`."""


def note(value: Any, name: str) -> Any:
    SEEN[name].append(value)
    return value


class Spy(beam.DoFn):  # type: ignore[misc]
    """Notes what Beam calls, and fails where a test says."""

    def __init__(self, fails: str = "", error: type[BaseException] = ValueError) -> None:
        self.fails, self.error = fails, error

    def _called(self, method: str) -> None:
        CALLS.append(method)
        if method == self.fails:
            raise self.error("too bad")

    def setup(self) -> None:
        self._called("setup")

    def start_bundle(self) -> None:
        self._called("start_bundle")

    def process(self, value: int) -> Iterator[Any]:
        self._called("process")
        metrics.count("values", value)
        if value % 2:
            yield TaggedOutput("odd", value)
        elif value == 4:
            yield TaggedOutput("unread", value)
        else:
            yield value

    def finish_bundle(self) -> Iterator[Any]:
        self._called("finish_bundle")
        yield GlobalWindows.windowed_value(100)

    def teardown(self) -> None:
        self._called("teardown")


def sides(value: int, few: Iterable[int], more: Iterable[int], factor: int) -> tuple[int, int, int]:
    return value * factor, sum(few), sum(more)


def lists(group: tuple[Any, Iterable[Any]]) -> tuple[Any, list[Any]]:
    return group[0], sorted(group[1])


def note_joined(pair: tuple[int, dict[str, list[int]]]) -> Any:
    return note((pair[0], sorted(pair[1]["left"]), pair[1]["right"]), "joined")


def note_joined_before(_: int) -> Any:
    return note(len(SEEN["joined"]), "after")


def everything(pipeline: beam.Pipeline) -> None:
    """A graph with all that graphs of vecbeam have."""
    numbers = pipeline | "Numbers" >> beam.Create(list(range(6)))
    once = pipeline | "Once" >> beam.Impulse() | "One" >> beam.Map(lambda _: 7)
    none = pipeline | "None" >> beam.Create([])
    spied = numbers | "Spy" >> beam.ParDo(Spy()).with_outputs("odd", main="even")
    both = (spied.even, spied.odd, spied.odd, none) | "Both" >> beam.Flatten() | "Spread" >> beam.Reshuffle()
    keyed = both | "Keyed" >> beam.FlatMap(lambda value: [(value % 2, value)] * 2)
    _ = both | "Both seen" >> beam.Map(note, "both")
    _ = keyed | beam.GroupByKey() | "Lists" >> beam.Map(lists) | "Groups seen" >> beam.Map(note, "groups")
    _ = keyed | beam.CombinePerKey(sum) | "Sums seen" >> beam.Map(note, "sums")
    _ = none | beam.Map(str) | "No groups" >> beam.GroupBy(len) | "Nothing seen" >> beam.Map(note, "nothing")
    beside = numbers | "Sides" >> beam.Map(sides, AsIter(spied.odd), AsIter(none), factor=3)
    _ = beside | "Sides seen" >> beam.Map(note, "sides")
    pairs = {"left": keyed, "right": once | "Pair" >> beam.Map(lambda value: (0, value))}
    joined = pairs | beam.CoGroupByKey() | "Joined seen" >> beam.Map(note_joined)
    waited = once | "Wait" >> beam.transforms.util.WaitOn(joined)
    _ = waited | "Waited" >> beam.Map(note_joined_before)


def piped(build: Callable[[beam.Pipeline], Any]) -> beam.Pipeline:
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    build(pipeline)
    return pipeline


def outcome(run: Callable[[beam.Pipeline], Any], build: Callable[[beam.Pipeline], Any] = everything) -> Any:
    """The counters, and what was seen, in any order: Beam promises none."""
    SEEN.clear()
    counters = run(piped(build))
    return counters, {name: sorted(values) for name, values in SEEN.items()}


def by_beam(pipeline: beam.Pipeline) -> Any:
    result = pipeline.run()
    result.wait_until_finish()
    return counters_of(result)


def here(pipeline: beam.Pipeline) -> Any:
    graph = in_process.Graph(pipeline)
    assert graph.unsupported == []
    return graph.run()


def test_a_graph_does_what_it_does_with_beam_s_runner() -> None:
    counters, seen = outcome(here)
    assert (counters, seen) == outcome(by_beam)
    assert counters == {"values": 15}
    assert seen["both"] == [0, 1, 1, 2, 3, 3, 5, 5, 100]
    assert seen["sides"] == [(3 * value, 9, 0) for value in range(6)]
    assert seen["after"] == [2]  # both groups were joined before
    assert "nothing" not in seen


@pytest.mark.parametrize("count", [0, 6])
def test_a_function_is_set_up_for_its_first_element_and_torn_down_once(count: int) -> None:
    CALLS.clear()
    here(piped(lambda start: start | beam.Create(list(range(count))) | beam.ParDo(Spy())))
    assert (["setup", "start_bundle", *["process"] * count, "finish_bundle", "teardown"] if count else []) == CALLS


@pytest.mark.parametrize("method", ["setup", "start_bundle", "process", "finish_bundle", "teardown"])
def test_an_error_is_raised_as_it_is(method: str) -> None:
    CALLS.clear()
    pipeline = piped(lambda start: start | beam.Create([1]) | beam.Map(int) | "Fails" >> beam.ParDo(Spy(method)))
    with pytest.raises(ValueError, match=r"^too bad") as raised:
        here(pipeline)
    assert str(raised.value) == "too bad"
    assert raised.value.__notes__ == ["while running 'Fails'"]
    assert CALLS[-1] == "teardown"
    assert CALLS.count("teardown") == 1
    assert not Path(pipeline.local_tempdir).exists()


def test_an_interruption_ends_the_graph() -> None:
    pipeline = piped(lambda start: start | beam.Create([1, 2]) | beam.ParDo(Spy("process", KeyboardInterrupt)))
    CALLS.clear()
    with pytest.raises(KeyboardInterrupt):
        here(pipeline)
    assert CALLS == ["setup", "start_bundle", "process", "teardown"]
    # What is counted from here on is not counted for a pipeline.
    before = metrics.OUTSIDE.snapshot().get("values", 0)
    metrics.count("values", 1)
    assert metrics.OUTSIDE.snapshot()["values"] == before + 1


def test_elements_go_through_all_steps_one_by_one() -> None:
    def build(start: beam.Pipeline) -> Any:
        numbers = start | beam.Create([1, 2, 3]) | beam.Reshuffle() | "Read" >> beam.Map(note, "order")
        return numbers | "Written" >> beam.Map(lambda value: note(-value, "order"))

    here(piped(build))
    assert SEEN.pop("order") == [1, -1, 2, -2, 3, -3]


def test_a_large_group_keeps_its_values_and_their_order() -> None:
    values = in_process.Values()
    many = [(number, str(number)) for number in range(2 * in_process.BLOCK + 3)]
    for value in many:
        values.append(value)
    assert list(values) == list(values) == many


class Counting(beam.DoFn):  # type: ignore[misc]
    KEPT = BagStateSpec("kept", VarIntCoder())

    def process(
        self,
        pair: tuple[int, int],
        kept: Any = beam.DoFn.StateParam(KEPT),  # noqa: B008
    ) -> Iterator[int]:
        kept.add(pair[1])
        yield len(list(kept.read()))


class Finalized(beam.DoFn):  # type: ignore[misc]
    def process(self, value: int, finalizer: Any = beam.DoFn.BundleFinalizerParam) -> Iterator[int]:
        yield value if finalizer else 0


OTHERS: dict[str, Callable[[beam.PCollection], Any]] = {
    "state": lambda numbers: numbers | beam.Map(lambda value: (0, value)) | "Odd" >> beam.ParDo(Counting()),
    "finalizer": lambda numbers: numbers | "Odd" >> beam.ParDo(Finalized()),
    "windows": lambda numbers: numbers | "Odd" >> beam.WindowInto(FixedWindows(10)),
    "view": lambda numbers: numbers | "Odd" >> beam.Map(lambda value, _: value, AsList(numbers)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_graph_with_another_kind_of_step_is_left_to_beam(kind: str) -> None:
    pipeline = piped(lambda start: OTHERS[kind](start | beam.Create([1])))
    [step] = in_process.Graph(pipeline).unsupported
    assert step.startswith("Odd (")
