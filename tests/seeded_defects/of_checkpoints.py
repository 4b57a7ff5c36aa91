"""Defects in writing, reading and keeping checkpoints, in the log and the lock."""

from __future__ import annotations

from tests.seeded_defects.defect import Defect

_POWER = "tests/integration/test_crash_power.py::test_power_cut_after_every_operation"
_KILLED = "tests/integration/test_crash_points.py::test_killed_at_every_operation[False]"
_HALF_KILLED = "tests/integration/test_crash_points.py::test_killed_at_every_operation[True]"
_FOLDER = "tests/unit/test_checkpoint_folder.py"
_RETENTION = "tests/unit/test_checkpoint_retention.py"
_RUN_FOLDER = "tests/unit/test_checkpoint_run_folder.py"
_RESUME = "tests/integration/test_resume.py"
_LIBRARY = "finetune/checkpoints"

DEFECTS = [
    Defect(
        "a file of a checkpoint is not synced",
        f"{_LIBRARY}/writing.py",
        "            size += len(piece)\n        files.fsync(handle)\n",
        "            size += len(piece)\n",
        _POWER,
    ),
    Defect(
        "the folder of a checkpoint is not synced",
        f"{_LIBRARY}/writing.py",
        "[manifest.rendered()], files)\n    files.fsync_path(folder)\n",
        "[manifest.rendered()], files)\n",
        _POWER,
    ),
    Defect(
        "the name of a checkpoint is not synced",
        f"{_LIBRARY}/writing.py",
        "    files.fsync_path(root)\n    return final\n",
        "    return final\n",
        _POWER,
    ),
    Defect(
        "renamed before the manifest is written",
        f"{_LIBRARY}/writing.py",
        "            _write_manifest(temporary, Manifest(step, run_id, parent_step, records), files)\n"
        "            _put_in_place(temporary, final, files)\n",
        "            _put_in_place(temporary, final, files)\n"
        "            _write_manifest(final, Manifest(step, run_id, parent_step, records), files)\n",
        _KILLED,
    ),
    Defect(
        "written in place",
        f"{_LIBRARY}/writing.py",
        '    temporary = root / f".tmp-{final.name}-{run_id}"\n',
        "    temporary = final\n",
        _KILLED,
    ),
    Defect(
        "old checkpoints are deleted before the new one is written",
        f"{_LIBRARY}/saving.py",
        "        write_checkpoint(root, step, tensors=tensors, documents=documents, run_id=run_id, "
        "parent_step=parent_step)\n        rotate(told.append)\n",
        "        __import__('shutil').rmtree(root, ignore_errors=True)\n"
        "        write_checkpoint(root, step, tensors=tensors, documents=documents, run_id=run_id, "
        "parent_step=parent_step)\n        rotate(told.append)\n",
        "tests/integration/test_full_disks.py::test_a_disk_that_stays_full_ends_the_run",
    ),
    Defect(
        "what is in the way is deleted",
        f"{_LIBRARY}/writing.py",
        "        files.rename(final, aside)\n    try:\n",
        "        files.rmtree(final)\n    try:\n",
        f"{_FOLDER}::test_what_is_in_the_way_is_moved_aside",
    ),
    Defect(
        "a replaced file is not synced",
        f"{_LIBRARY}/atomic.py",
        "            files.write(handle, data)\n            files.fsync(handle)\n",
        "            files.write(handle, data)\n",
        "tests/integration/test_crash_power.py::test_power_cut_while_something_is_replaced",
    ),
    Defect(
        "a file is replaced in place",
        f"{_LIBRARY}/atomic.py",
        "    temporary = path.with_name(temporary_name(path.name, tag=tag))\n"
        "    if temporary.exists() or temporary.is_symlink():\n        files.unlink(temporary)\n",
        "    temporary = path\n    if path.exists():\n        files.unlink(path)\n",
        "tests/integration/test_crash_points.py::test_a_file_is_the_old_or_the_new_one",
    ),
    Defect(
        "checksums of files are not compared",
        f"{_LIBRARY}/reading.py",
        "        if len(data) != record.size or checksum(data) != record.checksum:\n",
        "        if len(data) != record.size:\n",
        f"{_FOLDER}::test_one_flipped_bit_is_found[model.safetensors]",
    ),
    Defect(
        "the manifest's own checksum is not compared",
        f"{_LIBRARY}/manifest.py",
        "        if told != checksum(_text(body)) or data != _text(document):\n",
        "        if not told:\n",
        f"{_FOLDER}::test_one_flipped_bit_is_found[MANIFEST.json]",
    ),
    Defect(
        "sizes of files are not compared",
        f"{_LIBRARY}/reading.py",
        "        if size != record.size:\n",
        "        if size < 0:\n",
        f"{_RETENTION}::test_nothing_is_deleted_while_the_newest_is_damaged",
    ),
    Defect(
        "a manifest may name any path",
        f"{_LIBRARY}/manifest.py",
        "            if not is_safe_name(name) or not name.endswith((TENSORS, DOCUMENT)) or name == MANIFEST:\n",
        "            if not name:\n",
        f"{_FOLDER}::test_a_manifest_that_names_what_it_must_not_is_refused",
    ),
    Defect(
        "another run's checkpoint is gone on from",
        f"{_LIBRARY}/reading.py",
        "            if run_id is not None and found.run_id != run_id:\n",
        "            if run_id == found:\n",
        f"{_FOLDER}::test_a_checkpoint_of_another_run_is_passed_over",
    ),
    Defect(
        "the newest is the one that was touched last",
        f"{_LIBRARY}/reading.py",
        "key=lambda found: found[0], reverse=True):\n",
        "key=lambda found: found[1].stat().st_mtime, reverse=True):\n",
        f"{_FOLDER}::test_the_order_is_the_manifests",
    ),
    Defect(
        "a whole checkpoint may lack weights",
        "finetune/training/checkpoint_contents.py",
        "    odd = sorted(found.keys() ^ expected.keys())\n",
        "    odd = sorted(found.keys() - expected.keys())\n",
        "tests/integration/test_checkpoint_contents.py::test_tensors_that_are_not_the_runs_are_found",
    ),
    Defect(
        "the best is not kept",
        f"{_LIBRARY}/keeping.py",
        "*best_steps(saved)[: max(0, keep_best)], ",
        "",
        f"{_RETENTION}::test_best_survives_many_saves",
    ),
    Defect(
        "checkpoints are deleted under their names",
        f"{_LIBRARY}/retention.py",
        "            files.rename(root / step_name(step), path)\n            doomed.append(path)\n",
        "            doomed.append(root / step_name(step))\n",
        _HALF_KILLED,
    ),
    Defect(
        "names are not gone from the disk before what they name",
        f"{_LIBRARY}/retention.py",
        "        if doomed:\n            files.fsync_path(root)\n",
        "",
        _POWER,
    ),
    Defect(
        "the log keeps what came after the checkpoint",
        "finetune/training/saving.py",
        "            log.truncate_to(log_offset)\n",
        "",
        f"{_RESUME}::test_resumed_equals_uninterrupted_with_every_strategy[full]",
    ),
    Defect(
        "the log is cut in the middle of a line",
        f"{_LIBRARY}/log.py",
        '        whole = self._files.read(self.path)[:offset].rfind(b"\\n") + 1\n',
        "        whole = min(offset, self.offset)\n",
        f"{_RUN_FOLDER}::test_the_log_is_cut_at_whole_lines",
    ),
    Defect(
        "half a line stays in the log when the disk is full",
        f"{_LIBRARY}/log.py",
        "                self._files.truncate(self._handle, before)\n",
        "                pass\n",
        f"{_RUN_FOLDER}::test_a_full_disk_costs_lines_and_warns_once",
    ),
    Defect(
        "two runs may hold the lock",
        f"{_LIBRARY}/lock.py",
        "        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)\n",
        f"{_RUN_FOLDER}::test_a_second_run_is_refused_by_name",
    ),
    Defect(
        "a child keeps the lock of a dead owner",
        f"{_LIBRARY}/lock.py",
        "    for handle in _held:\n        os.close(handle)\n    _held.clear()\n",
        "    _held.clear()\n",
        f"{_RUN_FOLDER}::test_a_killed_owner_leaves_no_lock",
    ),
    Defect(
        "the lock of a folder that was moved aside counts",
        f"{_LIBRARY}/lock.py",
        "    if not _has_name(handle, folder / LOCK):\n",
        "    if handle < 0:\n",
        f"{_RUN_FOLDER}::test_a_folder_that_is_moved_while_it_is_locked_has_one_owner",
    ),
    Defect(
        "failed saves count that are not in a row",
        "finetune/training/saving.py",
        "self._failures, self._last_saved = 0, step",
        "self._last_saved = step",
        "tests/integration/test_full_disks.py::test_failures_that_are_not_in_a_row_end_nothing",
    ),
]
