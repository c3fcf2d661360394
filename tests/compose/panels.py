"""What Grafana would have to draw of the dashboards, by the stack's Prometheus."""

import math
import time
from collections.abc import Mapping

from tests.compose import prometheus
from tests.unit.deploy.files import Query, filled_in

SHOWN_S = 900
STEP_S = 15
# As Grafana fills them in for the last 15 minutes.
GIVEN = {"__rate_interval": "20s", "__range": f"{SHOWN_S}s"}
# A scrape, a rule that looks at it, and alerts that wait for nothing; graphs of a minute's steps need a little more.
PATIENCE_S = 120


def has_data(query: Query, values: Mapping[str, str]) -> bool:
    expr = filled_in(query.expr, {**GIVEN, **values})
    if query.instant:
        return any(not math.isnan(sample.value) for sample in prometheus.query(expr))
    now_s = time.time()
    span = {"start": f"{now_s - SHOWN_S}", "end": f"{now_s}", "step": f"{STEP_S}"}
    series = prometheus.get("query_range", query=expr, **span)["result"]
    return any(not math.isnan(float(value)) for each in series for _, value in each["values"])
