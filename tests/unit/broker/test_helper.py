"""The helper process: started with a job, at the priority that was asked for, and ended when there is nothing to do."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kourou_broker.helper import Helper


async def _until(condition: Callable[[], bool], within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 (another process: nobody tells)
            await asyncio.sleep(0.02)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_it_ends_when_it_has_nothing_to_do_and_comes_back(tmp_path: Path) -> None:
    helper = Helper(niceness=5, idle_s=0.2)
    try:
        first = await helper.run(os.getpid)
        assert os.getpriority(os.PRIO_PROCESS, first) == os.getpriority(os.PRIO_PROCESS, 0) + 5
        await _until(lambda: _is_gone(first))
        assert not _is_gone(await helper.run(os.getpid))
    finally:
        helper.close()


async def test_it_is_not_ended_in_the_middle_of_its_work(tmp_path: Path) -> None:
    helper = Helper(idle_s=0.05)
    try:
        long = asyncio.create_task(helper.run(os.system, "sleep 1; exit 3"))
        assert await asyncio.gather(*(helper.run(abs, -number) for number in range(5))) == [0, 1, 2, 3, 4]
        assert os.waitstatus_to_exitcode(await long) == 3
    finally:
        helper.close()


async def test_without_a_limit_it_stays_and_outlives_a_job_that_kills_it(tmp_path: Path) -> None:
    helper = Helper()
    try:
        first = await helper.run(os.getpid)
        with pytest.raises(Exception, match="terminated abruptly"):
            await helper.run(os._exit, 1)
        assert await helper.run(os.getpid) != first
    finally:
        helper.close()
    helper.close()
