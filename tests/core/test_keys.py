import jax.random as jr
import numpy as np
import pytest
from posterax._keys import check_key, describe_key, named, numbered, restore_key


@pytest.mark.parametrize("key", [0, 1.5, "seed", None, np.zeros(3), np.random.default_rng(0)])
def test_what_is_no_key_is_refused_with_the_cure(key):
    with pytest.raises(TypeError, match=r"`key` of sample must be a JAX random key; got .*jax\.random\.key\(0\)"):
        check_key(key, "sample")


def test_an_array_of_keys_is_refused():
    with pytest.raises(ValueError, match="one key; got an array of 3 keys"):
        check_key(jr.split(jr.key(0), 3), "sample")


def test_old_style_keys_are_taken_for_what_they_are():
    assert jr.key_data(check_key(jr.PRNGKey(7), "sample")).tolist() == jr.key_data(jr.key(7)).tolist()


def test_names_and_numbers_give_keys_that_do_not_depend_on_each_other():
    key = jr.key(0)
    words = {tuple(jr.key_data(named(key, name)).tolist()) for name in ("a", "b", "Draw#1", "Draw#2")}
    assert len(words) == 4
    assert (jr.key_data(numbered(key, 3)) == jr.key_data(numbered(key, 7))[:3]).all()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_a_described_key_comes_back(impl):
    key = jr.key(3, impl=impl)
    back = restore_key(describe_key(key))
    assert jr.key_impl(back) == jr.key_impl(key)
    assert (jr.key_data(back) == jr.key_data(key)).all()
