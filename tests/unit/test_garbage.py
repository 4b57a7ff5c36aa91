from __future__ import annotations

import gc
import weakref

import pytest

from finetune.training.garbage import collected_between


class Node:
    pass


def cycle() -> weakref.ref:
    node = Node()
    node.itself = node
    return weakref.ref(node)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fault", [None, RuntimeError])
def test_the_process_is_left_as_it_was(enabled, fault):
    gc.enable() if enabled else gc.disable()
    try:
        with pytest.raises(fault) if fault else collected_between(), collected_between():
            assert not gc.isenabled() and gc.get_freeze_count() > 0
            if fault:
                raise fault
        assert gc.isenabled() == enabled and gc.get_freeze_count() == 0
    finally:
        gc.enable()


def test_what_a_caller_froze_stays_frozen():
    gc.freeze()
    try:
        with collected_between():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_cycles_are_collected_at_set_steps():
    with collected_between() as collect:
        left = cycle()
        collect(19)
        assert left() is not None
        collect(20)
        assert left() is None
