"""The machine is described in plain data, and what nobody tells is None."""

import json
import subprocess

from suite.measure.machine import describe_machine, git_state, gpu_state, parse_gpu_state, slowdowns

LINE = "NVIDIA H100 80GB HBM3, 550.54.15, 1980, 2619, 1980, 41, 312.50, 700.00, 0x0000000000000004\n"


def test_a_machine_is_described_in_plain_data():
    machine = json.loads(json.dumps(describe_machine()))
    assert machine["cpu"]
    assert machine["threads"] >= 1
    assert machine["packages"]["torch"]
    assert machine["python"].startswith("3.")


def test_a_gpu_line_is_read_as_numbers():
    state = parse_gpu_state(LINE)
    assert state["name"] == "NVIDIA H100 80GB HBM3"
    assert state["sm_clock_mhz"] == 1980
    assert state["power_w"] == 312.5
    assert state["throttle"] == 4


def test_what_the_driver_does_not_tell_is_none():
    state = parse_gpu_state("NVIDIA A2, 535.1, 1000, [N/A], 1770, 50, [Not Supported], 60.00, [N/A]")
    assert state["power_w"] is state["throttle"] is state["memory_clock_mhz"] is None
    assert parse_gpu_state(None)["name"] is None
    assert slowdowns(state) == slowdowns(parse_gpu_state(None)) == []


def test_a_power_cap_is_normal_and_heat_is_not():
    assert slowdowns({"throttle": 0x04}) == []
    assert slowdowns({"throttle": 0x44}) == ["thermal (hardware)"]
    assert slowdowns({"throttle": 0x28}) == ["hardware slowdown", "thermal (software)"]


def test_without_nvidia_smi_the_gpu_state_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert set(gpu_state(0).values()) == {None}


def test_git_state_is_none_outside_a_checkout_and_sees_changes_inside(tmp_path):
    assert git_state(tmp_path) is None
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, *who, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "new.txt").write_text("x")
    assert git_state(tmp_path)["dirty"] is True
