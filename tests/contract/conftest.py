"""Of the contracts, those of the one method that is to be proved, where there is one."""

import pytest

from tests.contract.tiny_models import CHECKED


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What tasks, runtimes and measures owe is no matter of a method, and needs packages that it does not."""
    if CHECKED is None:
        return
    left_out = [item for item in items if not concerns(item, CHECKED)]
    items[:] = [item for item in items if concerns(item, CHECKED)]
    config.hook.pytest_deselected(items=left_out)


def concerns(item: pytest.Item, method: str) -> bool:
    """Whether a test is made for the method, by one of its parameters."""
    made = getattr(item, "callspec", None)
    return made is not None and method in made.params.values()
