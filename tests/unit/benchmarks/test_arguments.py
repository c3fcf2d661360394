"""Who is chosen, in which order, and what is refused."""

import pytest
from typer.testing import CliRunner

from benchmarks.rivals.__main__ import command, parse_sizes
from benchmarks.rivals.systems import PARTICIPANTS, choose, in_turn


def test_without_a_name_all_take_part() -> None:
    assert choose([]) == list(PARTICIPANTS)


def test_a_name_is_one_participant_or_the_beginning_of_several() -> None:
    assert choose(["kafka-flush"]) == ["kafka-flush"]
    assert choose(["kafka"]) == ["kafka-default", "kafka-flush"]
    assert choose(["nats-sync", "kourou-sync"]) == ["kourou-sync-stream", "kourou-sync-rocketmq", "nats-sync"]


def test_nobody_has_half_a_word_for_a_name() -> None:
    with pytest.raises(ValueError, match="'kaf'"):
        choose(["kafka", "kaf"])


def test_over_the_rounds_everybody_is_first_once() -> None:
    names = ["a", "b", "c"]
    turns = [in_turn(names, round_) for round_ in range(3)]
    assert [turn[0] for turn in turns] == names
    assert all(sorted(turn) == names for turn in turns)


def test_sizes() -> None:
    assert parse_sizes("100,1024") == [100, 1024]
    for text in ("", "7", "1024,1024", "1k", "-1", "4194305"):
        with pytest.raises(ValueError):  # noqa: PT011 -- int() has words of its own
            parse_sizes(text)


@pytest.mark.parametrize("arguments", [["nobody"], ["--sizes", "7"], ["--rounds", "0"], ["--seconds", "0"]])
def test_arguments_that_do_not_fit_are_refused_before_anything_starts(arguments: list[str]) -> None:
    outcome = CliRunner().invoke(command, arguments)
    assert outcome.exit_code == 2
