"""Nobody has used it yet: the first of these tests, by its name, finds it as `docker compose up` leaves it."""

import asyncio

from tests.cluster.waiting import eventually
from tests.compose.panels import PATIENCE_S, has_data
from tests.compose.stack import Stack
from tests.unit.deploy.files import queries

# As of topics and groups that are not there: what is shown then is 0, and whose, of `none`.
NOTHING = {"cluster": ".*", "broker": ".*", "namesrv": ".*", "topic": "no such topic", "group": "no such group"}


async def test_every_panel_shows_something(stack: Stack) -> None:
    """On all dashboards, but for those that say in words why they may be empty."""
    asked = [query for query in queries() if query.panel and not query.no_value]

    async def nothing_is_empty() -> bool:
        empty = await asyncio.to_thread(lambda: [query.where for query in asked if not has_data(query, NOTHING)])
        assert not empty, empty
        return True

    await eventually(nothing_is_empty, PATIENCE_S, interval_s=2, what="data for all panels")
