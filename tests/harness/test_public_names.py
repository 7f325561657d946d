"""The public functions are exported lazily, and no submodule hides one of them."""

from __future__ import annotations

import pkgutil

import gmbench


def test_every_export_is_there() -> None:
    assert set(gmbench.__all__) == set(gmbench._EXPORTS)
    for name in gmbench.__all__:
        assert getattr(gmbench, name) is not None
        assert name in dir(gmbench)


def test_no_submodule_bears_the_name_of_an_export() -> None:
    assert not {module.name for module in pkgutil.iter_modules(gmbench.__path__)} & set(gmbench.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(gmbench, "no_such_name")
