"""Defects in what is read: configuration, models, secrets."""

from __future__ import annotations

from tests.seeded_defects.defect import Defect

_YAML = "tests/unit/test_config_yaml.py::test_what_is_refused_is_named_with_its_line"
_CONTAINED = "tests/integration/test_contained_paths.py"
_OUT_OF_IT = f"{_CONTAINED}::test_a_folder_that_leads_out_of_itself_is_refused_before_it_is_read"

DEFECTS = [
    Defect(
        "a file of aliases is cut short in silence",
        "finetune/config/yaml_reader.py",
        "        if self.num_values > MAX_VALUES:\n",
        "        if self.num_values > MAX_VALUES:\n            return None\n        if self.num_values < 0:\n",
        _YAML,
    ),
    Defect(
        "the last of two equal keys wins",
        "finetune/config/yaml_reader.py",
        "            if key in found:\n",
        "            if key in self.faults:\n",
        _YAML,
    ),
    Defect(
        "tags of YAML are passed over",
        "finetune/config/yaml_reader.py",
        '        if node.tag.removeprefix(_TAG) not in {*_PATTERNS, "str"}:\n',
        "        if not node.tag:\n",
        _YAML,
    ),
    Defect(
        "an index may name weights outside its folder",
        "finetune/models/contained.py",
        "        if not isinstance(name, str) or Path(name).name != name or not ",
        "        if not isinstance(name, str) or not ",
        _OUT_OF_IT,
    ),
    Defect(
        "a link may lead out of a model's folder",
        "finetune/models/contained.py",
        "is_read and not path.resolve().is_relative_to(root):",
        "is_read and not path.exists():",
        _OUT_OF_IT,
    ),
    Defect(
        "a pickle under the name of safetensors is opened",
        "finetune/models/contained.py",
        "    if is_pickle(path):\n",
        "    if not path.exists():\n",
        _OUT_OF_IT,
    ),
    Defect(
        "any safetensors beside a pickle stand for the weights",
        "finetune/models/contained.py",
        "    if (folder / _WEIGHTS).is_file() or (library ",
        '    if any(folder.glob("*.safetensors")) or (library ',
        f"{_CONTAINED}::test_other_safetensors_beside_a_pickle_do_not_stand_for_the_weights",
    ),
    Defect(
        "code that a stranger's run folder names is run",
        "finetune/config/foreign.py",
        '    named = list(_code(read_file(file).tree)) if code == "refuse" else []\n',
        "    named: list[str] = []\n",
        f"{_CONTAINED}::test_code_that_a_run_folder_names_runs_only_when_it_is_trusted",
    ),
]
