"""Makes the tasks of a plan and wires their streams."""

import zlib

from localstorm import wire
from localstorm.grouping import chooser
from localstorm.plan import ComponentPlan, Plan, to_number
from localstorm.settings import Settings
from localstorm.spouting import SpoutState
from localstorm.task import Route, Task


def build_tasks(settings: Settings) -> list[Task]:
    """All tasks by id, each knowing the tasks that hear it."""
    plan = settings.plan
    components = {component.name: component for component in plan.components}
    by_name: dict[str, list[Task]] = {name: [] for name in components}
    for number, name in plan.tasks().items():
        if name in components:
            component, index = components[name], len(by_name[name])
            by_name[name].append(Task(component, number, index, _spout_state(plan, component)))
    tasks = [task for group in by_name.values() for task in group]
    for task in tasks:
        consumers = plan.consumers(task.name)
        for stream, info in task.component.outputs.items():
            task.middles[stream] = wire.tuple_middle(task.name, stream, task.id)
            task.routes[stream] = [
                Route(
                    by_name[name],
                    chooser(
                        subscription.kind,
                        len(by_name[name]),
                        [info.fields.index(field) for field in subscription.fields],
                        zlib.crc32(f"{task.id}>{name}".encode()),
                    ),
                )
                for name, subscription in consumers.get(stream, {}).items()
            ]
        _set_ticks(plan, task)
        task.faults = settings.faults.get(task.name)
    return tasks


def _spout_state(plan: Plan, component: ComponentPlan) -> SpoutState | None:
    if component.kind != "spout":
        return None
    key = "topology.max.spout.pending"
    return SpoutState(int(to_number(key, component.config.get(key), plan.number(key, 0))))


def _set_ticks(plan: Plan, task: Task) -> None:
    key = "topology.tick.tuple.freq.secs"
    every = to_number(key, task.component.config.get(key), plan.number(key, 0))
    if every and not task.spout:
        task.tick, task.tick_every = wire.tick(every), every
