"""Compiled loops run with and without a folder that keeps them."""

import numba.core.caching
import numba.extending
import pytest

from langsteer.compiled import compiled


def doubled(value: float) -> float:
    return 2 * value


def test_loops_run_where_no_folder_can_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # What numba is left with when neither the package nor the user's cache can be written to.
    monkeypatch.setattr(numba.core.caching.CompileResultCacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(doubled, cache=True)
    assert compiled(doubled)(3.0) == 6.0


def test_a_compiled_loop_gives_what_the_plain_one_gives() -> None:
    loop = compiled(doubled)
    assert numba.extending.is_jitted(loop)
    assert loop(3.0) == doubled(3.0)
