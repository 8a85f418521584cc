"""Runs the graph of a pipeline on the calling thread, without a runner of Beam.

Beam's local runner translates a graph to protocol buffers, pickles its functions, and exchanges requests about encoded
bundles with a worker in the same process. For a sync of a few items that was two fifths of the processor time. Here
Beam's `DoFnRunner`, which calls the functions in each of its Python workers, gets the elements directly.

An element goes through all steps up to the next grouping before the next element is read, as in a fused stage. What is
in memory are the groups, what waits for a side input, and the side inputs: no more than Beam's local runner holds.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.pvalue import AsIter, PCollection
from apache_beam.runners.common import DoFnRunner, DoFnSignature, Receiver
from apache_beam.transforms.core import Windowing
from apache_beam.transforms.sideinputs import SideInputMap
from apache_beam.transforms.window import GlobalWindows, WindowedValue

from transforms.support import metrics

BLOCK = 256
"""How many values are pickled together."""

_WINDOWING = Windowing(GlobalWindows())


class Graph:
    """The graph of a pipeline, if all of its transforms are such that they can run on the calling thread.

    These are `Impulse`, `Create`, `ParDo` (with side inputs by `AsIter`), `GroupByKey`, `Flatten` and `Reshuffle`, and
    whatever expands into them: `Map`, `CoGroupByKey`, combining, `WaitOn`. Everything is in the global window.

    Attributes:
        unsupported: names the transforms of other kinds; empty if the graph can run.
    """

    def __init__(self, pipeline: beam.Pipeline) -> None:
        self._pipeline = pipeline
        found = _Steps()
        pipeline.visit(found)
        self._steps = found.steps
        self.unsupported = found.unsupported

    def run(self) -> Counter[str]:
        """Runs it to its end, once; returns vecbeam's counters.

        An error of a function is raised as it is, with a note that names the step. An interruption of the thread ends
        the work at once.
        """
        try:
            with metrics.in_pipeline() as counters:
                self._run()
        finally:
            shutil.rmtree(self._pipeline.local_tempdir, ignore_errors=True)
        return counters

    def _run(self) -> None:
        try:
            # Each step comes after those whose elements it receives.
            for step in self._steps:
                step.finish()
        except BaseException:
            for step in self._steps:
                with contextlib.suppress(Exception):  # the first error tells what went wrong
                    step.close()
            raise
        for step in self._steps:
            step.close()


class _Collection(Receiver):  # type: ignore[misc]
    """A PCollection: hands each element to the steps that read it, and keeps those of a side input."""

    def __init__(self) -> None:
        self.readers: list[Callable[[WindowedValue], None]] = []
        self.kept: list[WindowedValue] | None = None

    def receive(self, element: WindowedValue) -> None:
        if self.kept is not None:
            self.kept.append(element)
        for read in self.readers:
            read(element)


class _Outputs(dict[str | None, _Collection]):
    """The outputs of a step by tag. Elements of a tag that nothing reads go nowhere."""

    def __missing__(self, tag: str | None) -> _Collection:
        self[tag] = made = _Collection()
        return made


class _Step:
    """What is done with the elements of PCollections."""

    def receive(self, element: WindowedValue) -> None:
        """Takes an element."""

    def finish(self) -> None:
        """Ends the input: is called once, after the last element."""

    def close(self) -> None:
        """Is called at the end, also after an error."""


class _Source(_Step):
    def __init__(self, values: Iterable[Any], output: _Collection) -> None:
        self._values, self._output = values, output

    def finish(self) -> None:
        for value in self._values:
            self._output.receive(GlobalWindows.windowed_value(value))


class Values:
    """The values of a group, in their order. Many are kept as pickles, half as large as records."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._last: list[Any] = []

    def append(self, value: Any) -> None:
        """Adds a value."""
        self._last.append(value)
        if len(self._last) == BLOCK and not isinstance(value, bytes):
            self._blocks.append(pickle.dumps(self._last, pickle.HIGHEST_PROTOCOL))
            self._last = []

    def __iter__(self) -> Iterator[Any]:
        for block in self._blocks:
            yield from pickle.loads(block)
        yield from self._last


class _Group(_Step):
    def __init__(self, output: _Collection) -> None:
        self._groups: dict[Any, Values] = {}
        self._output = output

    def receive(self, element: WindowedValue) -> None:
        key, value = element.value
        self._groups.setdefault(key, Values()).append(value)

    def finish(self) -> None:
        for key in list(self._groups):
            self._output.receive(GlobalWindows.windowed_value((key, self._groups.pop(key))))


class _Function(_Step):
    """Calls a DoFn, all elements as one bundle. It is set up when the first one comes, and never without one."""

    def __init__(self, node: AppliedPTransform, sides: list[_Collection], outputs: _Outputs) -> None:
        self._label, self._transform = node.full_label, node.transform
        self._sides, self._outputs = sides, outputs
        self._waiting: deque[WindowedValue] = deque()
        self._runner: DoFnRunner | None = None
        for side in sides:
            side.kept = []

    def receive(self, element: WindowedValue) -> None:
        if self._sides:  # they are complete when all steps before this one have ended
            self._waiting.append(element)
        else:
            self._process(element)

    def finish(self) -> None:
        while self._waiting:
            self._process(self._waiting.popleft())
        if self._runner is not None:
            with self._named():
                self._runner.finish()

    def close(self) -> None:
        if self._runner is not None:
            with self._named():
                self._runner.teardown()

    def _process(self, element: WindowedValue) -> None:
        with self._named():
            if self._runner is None:
                self._runner = self._made()
                self._runner.setup()
                self._runner.start()
            self._runner.process(element)

    def _made(self) -> DoFnRunner:
        given = self._transform
        sides = [SideInputMap(AsIter, {}, side.kept) for side in self._sides]
        # Without a name: else it would put the name into messages, and so make other errors of some.
        return DoFnRunner(given.fn, given.args, given.kwargs, sides, _WINDOWING, self._outputs)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Errors pass through the steps before, too.
            if not getattr(error, "__notes__", None):
                error.add_note(f"while running {self._label!r}")
            raise


class _Steps(PipelineVisitor):  # type: ignore[misc]
    """Makes the steps of a pipeline, each after those whose elements it receives: Beam visits them in that order."""

    def __init__(self) -> None:
        self.steps: list[_Step] = []
        self.unsupported: list[str] = []
        self._collections: dict[PCollection, _Collection] = {}
        self._functions: set[int] = set()
        self._whole: AppliedPTransform | None = None

    def enter_composite_transform(self, node: AppliedPTransform) -> None:
        if self._whole is None and type(node.transform) in (beam.Create, beam.Reshuffle):
            self._whole = node

    def leave_composite_transform(self, node: AppliedPTransform) -> None:
        if node is self._whole:
            self._whole = None
            self._add(node)

    def visit_transform(self, node: AppliedPTransform) -> None:
        if self._whole is None:
            self._add(node)

    def _add(self, node: AppliedPTransform) -> None:
        given = node.transform
        kind = type(given)
        if kind in (beam.Create, beam.Impulse):
            self.steps.append(_Source(given.values if kind is beam.Create else [b""], self._output(node)))
        elif kind in (beam.Flatten, beam.Reshuffle):
            self._connect(node, self._output(node).receive)
        elif kind is beam.GroupByKey:
            self._add_step(node, _Group(self._output(node)))
        elif kind is beam.ParDo and self._is_plain(given.fn) and all(type(side) is AsIter for side in node.side_inputs):
            outputs = _Outputs({tag: self._made(output) for tag, output in node.outputs.items()})
            self._add_step(node, _Function(node, [self._made(side.pvalue) for side in node.side_inputs], outputs))
        else:
            self.unsupported.append(f"{node.full_label} ({kind.__name__})")

    def _is_plain(self, fn: beam.DoFn) -> bool:
        """Whether it has no state, timers, restrictions, batches or finalizers, and no other step shares it."""
        signature = DoFnSignature(fn)
        is_shared = id(fn) in self._functions
        self._functions.add(id(fn))
        return not (
            is_shared
            or signature.is_stateful_dofn()
            or signature.is_splittable_dofn()
            or signature.has_bundle_finalization()
            or fn._process_batch_defined
        )

    def _add_step(self, node: AppliedPTransform, step: _Step) -> None:
        self.steps.append(step)
        self._connect(node, step.receive)

    def _connect(self, node: AppliedPTransform, read: Callable[[WindowedValue], None]) -> None:
        for given in node.inputs:
            self._made(given).readers.append(read)

    def _output(self, node: AppliedPTransform) -> _Collection:
        [output] = node.outputs.values()
        return self._made(output)

    def _made(self, collection: PCollection) -> _Collection:
        return self._collections.setdefault(collection, _Collection())
