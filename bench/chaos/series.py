"""A series of chaos runs: a Clicktide of their own for each, or, on the stack, one for as many as pass in a row.

Promises: the data of a place where a run failed is kept; a place in which a run failed is not used again; what goes wrong in one
run is that run's outcome, and the next has its turn.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.chaos import embedded, plan, stack
from bench.chaos.disks import Disks
from bench.chaos.embedded_run import running_embedded
from bench.chaos.report import Outcome, phase_lines
from bench.chaos.runner import Place, Run
from bench.chaos.scenario import Scenario
from bench.chaos.stack_run import running_stack
from bench.chaos.traffic import Load
from clicktide.errors import ClicktideError, SettingError
from clicktide.settings import Settings, from_environment
from deploy.stack.errors import StackError

_MARK = "chaos.json"


@dataclass
class Ground:
    """A place with its folder, how it is named on command lines, and whether all runs in it have passed."""

    site: Place
    root: Path
    where: Sequence[str]
    environ: Mapping[str, str]
    sound: bool = True


@dataclass(frozen=True)
class Series:
    """`settings(root)` answers those of the embedded services below `root`; `targets`: only these, if any are named."""

    env: str
    root: Path
    project: Path
    config_file: Path
    settings: Callable[[Path], Settings]
    kinds: Sequence[str]
    targets: frozenset[str]
    keep: bool
    say: Callable[[str], None]
    scenario: Scenario | None = None

    def faults(self, load: Load) -> tuple[plan.Fault, ...]:
        """The faults of one run, told. Raises `SettingError` for a target that does not exist."""
        known = embedded.targets() if self.env == "embedded" else stack.targets()
        if unknown := self.targets - {name for names in known.values() for name in names}:
            raise SettingError(f"--targets: unknown target {min(unknown)!r}; ./tide chaos --plan names them")
        wanted = {
            k: [n for n in names if not self.targets or n in self.targets] for k, names in known.items()
        }
        faults = plan.schedule(load.seed, load.seconds, wanted, self.kinds)
        if self.scenario is not None:
            faults = self.scenario.faults
        self.say(f"seed {load.seed}: {len(faults)} faults in {load.seconds:g} s, {load.rate:g} records/s")
        for fault in faults:
            self.say("  " + fault.line())
        return faults

    def run(self, loads: Sequence[Load]) -> Iterator[Outcome]:
        """Each run's outcome, as it ends."""
        with ExitStack() as held:
            ground: Ground | None = None
            for number, load in enumerate(loads):
                faults = self.faults(load)
                outcome = Outcome(self.env, load.seed, load.seconds)
                try:
                    if ground is None:
                        ground = held.enter_context(self._ground(loads[number:]))
                    ground.sound = False
                    self._run(ground, load, faults, outcome)
                except (ClicktideError, StackError) as e:
                    outcome.problems.append(str(e))
                if ground is not None:
                    ground.sound = outcome.passed
                self._tell(outcome)
                if self.env == "embedded" or not outcome.passed:
                    held.close()
                    ground = None
                yield outcome

    def _run(self, ground: Ground, load: Load, faults: Sequence[plan.Fault], outcome: Outcome) -> None:
        folder = ground.root / f"seed-{load.seed}"
        folder.mkdir()
        Run(
            ground.site,
            faults,
            load,
            outcome,
            where=ground.where,
            folder=folder,
            environ=ground.environ,
            say=self.say,
            phases=self.scenario.phases if self.scenario else None,
        ).run()
        (folder / "outcome.json").write_text(json.dumps(outcome.as_dict(), indent=1), "utf-8")

    def _tell(self, outcome: Outcome) -> None:
        for line in phase_lines(outcome):
            self.say(line)
        for problem in outcome.problems:
            self.say(f"problem: {problem}")
        self.say(f"seed {outcome.seed}: {'passed' if outcome.passed else 'FAILED'}")

    def _settings(self, root: Path) -> Settings:
        own = self.settings(root)
        return from_environment({}, {**own.options(), **self.scenario.options}) if self.scenario else own

    @contextmanager
    def _ground(self, loads: Sequence[Load]) -> Iterator[Ground]:
        """A place for the first of these, and on the stack for those that follow."""
        root = self.root / f"{self.env}-{loads[0].seed}"
        make_anew(root)
        disks = Disks(wanted=plan.FULL in self.kinds)
        if disks.why_not and plan.FULL in self.kinds:
            self.say(f"{disks.why_not}: faults of kind full will be missed")
        ground: Ground | None = None
        try:
            with ExitStack() as things:
                if self.env == "stack":
                    config = json.loads(self.config_file.read_text("utf-8"))
                    records = sum(load.records() for load in loads)
                    site, environ = things.enter_context(
                        running_stack(root, self.project, config, disks, records, self.say)
                    )
                    ground = Ground(site, root, ["-e", self.env], environ)
                else:
                    place = things.enter_context(
                        running_embedded(
                            root, self._settings(root), self.kinds, disks, loads[0].records(), self.say
                        )
                    )
                    where = ["-e", self.env, "--data-dir", str(root)]
                    ground = Ground(place, root, where, place.services.environ)
                yield ground
        finally:
            keep = self.keep or ground is None or not ground.sound
            disks.release(keep=keep)
            if keep:
                self.say(f"the data is in {root}")
            else:
                shutil.rmtree(root)


def make_anew(root: Path) -> None:
    """An empty folder; one that is there must be a former run's."""
    if root.exists():
        if not (root / _MARK).exists():
            raise SettingError(f"{root} is no chaos run's folder; move it away, or choose another --data-dir")
        shutil.rmtree(root)
    (root / "chaos").mkdir(parents=True)
    (root / _MARK).write_text("{}", "utf-8")
