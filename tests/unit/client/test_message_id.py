import os
import re
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kourou import InvalidArgument, OffsetMessageId
from kourou.message_id import STORED_KEY, Place, new_message_id

PRINT_IDS = "from kourou.message_id import new_message_id\nfor _ in range(100): print(new_message_id())"


def test_layout():
    before = int(time.time()) - 1_609_459_200
    one, two = new_message_id(), new_message_id()
    assert re.fullmatch(r"01[0-9A-F]{32}", one)
    assert int(one[2:4], 16) & 1, "a made-up node has the multicast bit"
    assert int(one[14:18], 16) == os.getpid() & 0xFFFF
    assert before <= int(one[18:26], 16) <= before + 2
    assert (int(two[26:], 16) - int(one[26:], 16)) % 2**32 == 1


def test_unique_over_threads():
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.extend(new_message_id() for _ in range(1000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 8000


def test_unique_over_processes():
    runs = [subprocess.Popen([sys.executable, "-c", PRINT_IDS], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    ids = [line for run in runs for line in run.communicate(timeout=60)[0].split()]
    assert len(set(ids)) == 300
    assert len({an_id[2:14] for an_id in ids}) == 3, "each process has a node of its own"


def test_a_forked_child_has_a_node_of_its_own():
    script = (
        "import os\nfrom kourou.message_id import new_message_id\nnew_message_id()\nchild = os.fork()\n"
        "os.write(1, new_message_id().encode() + b'\\n')\nif child: os.waitpid(child, 0)"
    )
    ids = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60).stdout.split()
    assert len({an_id[2:14] for an_id in ids}) == 2


@given(st.from_regex(r"[a-z-]+", fullmatch=True), st.integers(0, 2**63), st.integers(0, 2**31))
def test_offset_message_ids_are_read_as_written(broker: str, position: int, index: int):
    made = OffsetMessageId(broker, position, index)
    assert OffsetMessageId.parse(str(made)) == made


def test_offset_message_id_layout():
    assert str(OffsetMessageId("broker-a", 0x1F40, 3)) == "broker-a@1f40.3"
    for text in ("", "broker-a", "broker-a@", "broker-a@xyz.1", "@1.1", "broker-a@1f40.3\n"):
        with pytest.raises(InvalidArgument):
            OffsetMessageId.parse(text)


def test_where_a_request_was_stored():
    places = Place.of_trailing({STORED_KEY: "3.8000.5"}, 3)
    assert places[0] == Place(queue_id=3, position=8000, index=5)
    assert [place.offset_message_id("broker-a") for place in places] == [
        f"broker-a@1f40.{index}" for index in (5, 6, 7)
    ]
    apart = Place.of_trailing({STORED_KEY: "3.8000.5,-1.16.0"}, 2)
    assert apart == [Place(3, 8000, 5), Place(-1, 16, 0)]
    for wrong in ({}, {STORED_KEY: ""}, {STORED_KEY: "1.2"}, {STORED_KEY: "a.b.c"}, {STORED_KEY: "1.2.3,4.5.6"}):
        assert Place.of_trailing(wrong, 3) == []
