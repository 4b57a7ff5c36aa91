"""The CI file for users runs the versions that the metadata calls the lowest."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

TREE = Path(__file__).parents[2]
PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
FLOOR = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")
PIN = re.compile(r"([A-Za-z0-9_.-]+)==([0-9.]+)")


def test_the_lowest_are_the_floors():
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["tune"]]
    floors = dict(FLOOR.fullmatch(text).groups() for text in needed)  # each has one, and nothing else
    lines = (TREE / "docs" / "ci" / "lowest.txt").read_text().splitlines()
    assert dict(PIN.fullmatch(line).groups() for line in lines if not line.startswith("#")) == floors


def test_the_job_runs_them_on_the_lowest_python_and_the_newest_beside():
    job = yaml.safe_load((TREE / "docs" / "ci" / "tests.yml").read_text())["jobs"]["tests"]
    lowest, newest = job["strategy"]["matrix"]["include"]
    assert (lowest["versions"], newest["versions"]) == ("lowest", "newest")
    assert PROJECT["requires-python"] == f">={lowest['python']}"
    assert (TREE / lowest["constraints"].split()[-1]).is_file() and not newest["constraints"]
    commands = [step["run"].strip() for step in job["steps"] if "run" in step]
    assert "${{ matrix.constraints }}" in commands[0] and "-e '.[test]'" in commands[0] and commands[-1] == "pytest"
