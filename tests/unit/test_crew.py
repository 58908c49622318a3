"""Which hosts go on, and with how many ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.errors import PlanError
from hpctrain.hosts import Host
from hpctrain.launch.crew import choose_crew, count_capacity, split_spares

A, B, C, D = (Host(name, 2) for name in "abcd")


def names(hosts):
    return "".join(host.name for host in hosts)


def choose(current="ab", others="", wanted=None, least=None, slots=2, unfit="", blamed="",
           doubtful=""):  # fmt: skip
    hosts = {host.name: host for host in (A, B, C, D)}
    wanted = wanted or slots * len(current)
    return choose_crew(
        [hosts[n] for n in current], [hosts[n] for n in others], dict.fromkeys("abcd", slots),
        wanted, least or wanted, dict.fromkeys(unfit, "gone"), dict.fromkeys(blamed, "silent"),
        dict.fromkeys(doubtful, "again"),
    )  # fmt: skip


# -- spares ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spares", "active", "waiting"), [
    (0, "abcd", ""), (1, "abc", "d"), (3, "a", "bcd"), (("b",), "acd", "b"),
    (("d", "b"), "ac", "bd"), ((), "abcd", ""),
])  # fmt: skip
def test_spares_wait(spares, active, waiting):
    first, rest = split_spares([A, B, C, D], spares)
    assert (names(first), names(rest)) == (active, waiting)


@pytest.mark.parametrize(("hosts", "spares", "message"), [
    ([A, B], 2, "no host is left for ranks, got 2 spares of 2 hosts; expected at most 1"),
    ([A, B], 5, "no host is left"),
    ([], 1, "no host is left"),
    ([A, B], ("a", "b"), "no host is left"),
    ([A, Host("node7")], ("node8",), "no host of that name, got 'node8'; .*Did you mean 'node7'"),
])  # fmt: skip
def test_spares_that_cannot_be(hosts, spares, message):
    with pytest.raises(PlanError, match=message):
        split_spares(hosts, spares)


# -- the crew --------------------------------------------------------------------------------------


def test_nobody_is_exchanged_without_need():
    crew = choose(others="cd")
    assert (names(crew.hosts), names(crew.others), crew.np) == ("ab", "cd", 4)
    assert (crew.left, crew.came) == ({}, ())


def test_a_spare_takes_over():
    crew = choose(others="cd", unfit="b")
    assert (names(crew.hosts), crew.np) == ("ac", 4)
    assert (crew.left, crew.came) == ({"b": "gone"}, ("c",))
    assert names(crew.others) == "db"  # who left may come back, but last


def test_an_unfit_spare_is_passed_over():
    assert names(choose(others="cd", unfit="bc").hosts) == "ad"


def test_without_a_spare_it_goes_on_smaller_down_to_the_least():
    crew = choose("abc", least=2, unfit="b")
    assert (names(crew.hosts), crew.np, crew.left) == ("ac", 4, {"b": "gone"})
    assert choose("abc", least=5, unfit="b") is None
    assert choose("ab", least=1, unfit="ab") is None


def test_who_fell_silent_leaves_though_it_answers():
    crew = choose(others="c", blamed="a")
    assert (names(crew.hosts), crew.left) == ("bc", {"a": "silent"})
    assert names(choose("abc", least=4, blamed="c").hosts) == "ab"


def test_who_fell_silent_is_taken_back_where_there_is_nobody_else():
    crew = choose(blamed="b")
    assert (names(crew.hosts), crew.np) == ("ab", 4)
    assert choose(blamed="b", unfit="b") is None


def test_who_fails_again_and_again_makes_room_for_a_spare_and_for_nothing_else():
    crew = choose(others="c", doubtful="b")
    assert (names(crew.hosts), crew.left) == ("ac", {"b": "again"})
    assert names(choose(least=1, doubtful="b").hosts) == "ab"


def test_a_host_that_came_back_makes_the_run_whole_again():
    crew = choose("a", others="b", wanted=4, least=2)
    assert (names(crew.hosts), crew.np, crew.came) == ("ab", 4, ("b",))


@given(
    current=st.integers(1, 3), slots=st.integers(1, 4), least=st.integers(1, 12),
    unfit=st.sets(st.sampled_from("abcd")), blamed=st.sets(st.sampled_from("abcd")),
    doubtful=st.sets(st.sampled_from("abcd")),
)  # fmt: skip
def test_a_crew_is_fit_and_large_enough(current, slots, least, unfit, blamed, doubtful):
    wanted = slots * current
    least = min(least, wanted)
    crew = choose("abcd"[:current], "abcd"[current:], wanted, least, slots, unfit, blamed, doubtful)
    if crew is None:
        assert slots * (4 - len(unfit)) < least
        return
    assert not {host.name for host in crew.hosts} & unfit
    assert least <= crew.np <= min(wanted, slots * len(crew.hosts))
    assert sorted(names(crew.hosts) + names(crew.others)) == list("abcd")
    assert set(crew.left) == set("abcd"[:current]) - set(names(crew.hosts))


# -- how much a host takes -------------------------------------------------------------------------


def test_slots_are_shared_as_much_as_at_first():
    assert count_capacity({"a": 2, "b": 4}, {}, np=6, np_slots=6) == {"a": 2, "b": 4}
    assert count_capacity({"a": 2, "b": 4}, {}, np=3, np_slots=6) == {"a": 2, "b": 4}
    assert count_capacity({"a": 2, "b": 4}, {"b": 5}, np=12, np_slots=6) == {"a": 4, "b": 5}
