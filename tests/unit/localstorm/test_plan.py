"""What can be known of a topology before anything runs."""

import os
from pathlib import Path

import pytest

import localstorm
from localstorm import handshake
from localstorm.cli import main, parser, request_of
from localstorm.errors import LocalStormError
from localstorm.plan import ComponentPlan, InputPlan, Plan, StreamPlan, check, child_environment

CHECKOUT = Path(localstorm.__file__).resolve().parent.parent
ONE = {"default": StreamPlan(("n",))}
PLAN = Plan(
    name="p",
    components=(
        ComponentPlan("spout", "spout", "streamparse_run", "s.S", outputs=ONE),
        ComponentPlan("b", "bolt", "streamparse_run", "b.B", 2, outputs=ONE, inputs=(InputPlan("spout"),)),
        ComponentPlan("a", "bolt", "streamparse_run", "b.A", inputs=(InputPlan("b", kind="global"),)),
    ),
)


def test_tasks_are_numbered_as_storm_numbers_them():
    assert PLAN.tasks() == {1: "__acker", 2: "a", 3: "b", 4: "b", 5: "spout"}


def test_downstream_follows_all_streams():
    assert PLAN.downstream("spout") == {"a", "b"}
    assert PLAN.downstream("b") == {"a"}
    assert PLAN.downstream("a") == set()


def test_a_components_own_settings_reach_it_alone():
    quiet, loud = PLAN.components[1], PLAN.components[2]
    loud = ComponentPlan(**{**{f: getattr(loud, f) for f in loud.__struct_fields__}, "config": {"x": 1}})
    assert handshake.message(PLAN, loud, 2, "pids")["conf"]["x"] == 1
    assert "x" not in handshake.message(PLAN, quiet, 3, "pids")["conf"]


def test_components_do_not_see_the_runners_own_checkout():
    other = str(Path(os.sep, "srv", "lib"))
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "src"), other])
    env = child_environment({"PYTHONPATH": path, "PATH": "/bin", "HOME": "/h"})
    assert env["PYTHONPATH"] == other
    assert env["PATH"].endswith(os.pathsep + "/bin")
    assert env["HOME"] == "/h"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"serializer": "msgpack"}, "serializer 'msgpack'"),
        ({"conf": {"topology.message.timeout.secs": 0}}, "topology.message.timeout.secs must be more than 0"),
        ({"conf": {"topology.subprocess.timeout.secs": "soon"}}, "is 'soon': expected a number"),
    ],
)
def test_settings_that_cannot_work_are_named(tmp_path, changed, expected):
    (tmp_path / "src").mkdir()
    plan = Plan(**{**{field: getattr(PLAN, field) for field in PLAN.__struct_fields__}, **changed})
    with pytest.raises(LocalStormError, match=expected):
        check(plan, tmp_path)


def test_short_options_become_storm_options():
    args = parser().parse_args(["-w", "2", "-a", "0", "-d", "-o", "a=b", "--par", "b=3"])
    request = request_of(args)
    assert request.options == (
        "a=b",
        "topology.workers=2",
        "topology.acker.executors=0",
        "topology.debug=true",
    )
    assert request.par == {"b": 3}


def test_a_wrong_flag_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--wrong"], prog="tide local")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: unrecognized arguments: --wrong (see tide local --help)"
