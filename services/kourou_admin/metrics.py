"""The admin service's figures: how level the brokers' definitions are."""

from kourou_admin.levelling import Levelling
from kourou_service.metrics.family import Collect, Family, counter, gauge


def admin_figures(levelling: Levelling) -> Collect:
    async def collect() -> list[Family]:
        return [
            counter(
                "kourou_admin_levelled_definitions_total",
                "Topics and groups given to brokers that lacked them.",
                levelling.levelled,
            ),
            counter(
                "kourou_admin_level_failures_total",
                "Comparisons of the brokers' definitions that failed.",
                levelling.failures,
            ),
            gauge(
                "kourou_admin_brokers_reachable",
                "Brokers that answered when definitions were last compared.",
                levelling.reachable,
            ),
            gauge(
                "kourou_admin_differing_definitions",
                "Topics and groups that brokers still lacked after the last comparison.",
                levelling.differing,
            ),
        ]

    return collect
