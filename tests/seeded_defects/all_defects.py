"""All defects, in the order of the table."""

from __future__ import annotations

from tests.seeded_defects import of_checkpoints, of_input, of_runs

DEFECTS = [*of_checkpoints.DEFECTS, *of_runs.DEFECTS, *of_input.DEFECTS]
