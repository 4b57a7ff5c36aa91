"""Puts recipes and accelerate configurations, which stand at the top of the tree, inside the package of a wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = {"recipes": "*.py", "accelerate_configs": "*.yaml"}


class BuildWithFolders(build_py):
    """An editable install finds the folders beside the package, so only a wheel copies them."""

    def run(self):
        """Builds the package, then adds the folders."""
        super().run()
        if self.editable_mode:
            return
        for source, target in self._copies():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode=1):
        """Every file of the build, the folders' included."""
        return super().get_outputs(include_bytecode) + [str(target) for _, target in self._copies()]

    def get_source_files(self):
        """Every file that a source archive needs for the build."""
        return super().get_source_files() + [str(source) for source, _ in self._copies()]

    def _copies(self):
        for folder, pattern in FOLDERS.items():
            for source in sorted(Path(folder).glob(pattern)):
                yield source, Path(self.build_lib) / "finetune" / folder / source.name


setup(cmdclass={"build_py": BuildWithFolders})
