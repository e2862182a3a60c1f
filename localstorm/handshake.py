"""What a component learns when it starts: its configuration and its place in the topology, as Storm says it."""

from localstorm.plan import ComponentPlan, InputPlan, Plan

DEFAULTS: dict[str, object] = {
    "topology.debug": False,
    "topology.message.timeout.secs": 30,
    "topology.subprocess.timeout.secs": 30,
    "topology.max.spout.pending": None,
    "topology.shellbolt.max.pending": 100,
    "topology.tick.tuple.freq.secs": None,
}
"""Storm's own values for settings that components look at."""


def grouping_description(subscription: InputPlan) -> dict[str, object]:
    """A grouping as Storm writes it into the context."""
    description: dict[str, object] = {"type": subscription.kind.upper()}
    if subscription.kind == "fields":
        description["fields"] = list(subscription.fields)
    elif subscription.kind == "global":
        description = {"type": "FIELDS", "fields": []}
    return description


def context(plan: Plan, component: ComponentPlan, task: int) -> dict[str, object]:
    """The topology context of one task."""
    by_name = {other.name: other for other in plan.components}
    source_fields: dict[str, dict[str, list[str]]] = {}
    source_groupings: dict[str, dict[str, object]] = {}
    for subscription in component.inputs:
        source, stream = subscription.component, subscription.stream
        fields = by_name[source].outputs[stream].fields
        source_fields.setdefault(source, {})[stream] = list(fields)
        source_groupings.setdefault(source, {})[stream] = grouping_description(subscription)
    consumers = plan.consumers(component.name)
    return {
        "taskid": task,
        "componentid": component.name,
        "task->component": {str(number): name for number, name in plan.tasks().items()},
        "streams": list(component.outputs),
        "stream->outputfields": {name: list(stream.fields) for name, stream in component.outputs.items()},
        "stream->target->grouping": {
            stream: {name: grouping_description(found) for name, found in consumers.get(stream, {}).items()}
            for stream in component.outputs
        },
        "source->stream->fields": source_fields,
        "source->stream->grouping": source_groupings,
    }


def message(plan: Plan, component: ComponentPlan, task: int, pid_dir: str) -> dict[str, object]:
    """The handshake of one task."""
    conf = {
        **DEFAULTS,
        "storm.cluster.mode": "local",
        **plan.conf,
        "topology.name": plan.name,
        "topology.id": f"{plan.name}-1-localstorm",
        **component.config,
    }
    return {"pidDir": pid_dir, "conf": conf, "context": context(plan, component, task)}
