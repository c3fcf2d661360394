"""How all our dashboards look: their frame, their kinds of panels, their variables. Units are Grafana's names."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = common_models.DataSourceRef(type_val="prometheus", uid="kourou-prometheus")
"""As deploy/grafana/provisioning/datasources has it."""

P = TypeVar("P", stat.Panel, timeseries.Panel, table.Panel, statetimeline.Panel)

TAG = "kourou"
COLUMNS = 24
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
TIME_MS, TIME_S, BYTES, BYTES_S, PER_S, PER_MIN, RATIO = "ms", "s", "bytes", "Bps", "cps", "cpm", "percentunit"
NUMBER, MESSAGES_S = "short", "suffix: msg/s"


class Query(NamedTuple):
    expr: str
    legend: str = ""
    """Labels are named {{so}}."""


class Steps(NamedTuple):
    """Colours of a value: the first until the next one's lower end."""

    first: str = GREEN
    others: tuple[tuple[float, str], ...] = ()


GOOD = Steps()
NEUTRAL = Steps(BLUE)
NONE_IS_GOOD = Steps(GREEN, ((1, RED),))
NONE_IS_BAD = Steps(RED, ((1, GREEN),))


def new_board(uid: str, title: str, description: str) -> Dashboard:
    """Links to the others, alerts and starts as marks in all graphs, and the variable `cluster`."""
    return (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .time("now-15m", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Kourou")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .icon("external link")
            .tooltip("The other dashboards")
            .include_vars(True)
            .keep_time(True)
        )
        .annotation(_mark("Alerts", RED, "{{alertname}}").expr('ALERTS{alertstate="firing", severity!="info"}'))
        .annotation(
            _mark("Starts", BLUE, "{{node_type}} {{node_id}} started")
            .expr('process_start_time_seconds{cluster=~"$cluster"} * 1000')
            .use_value_for_time(True)
        )
        .with_variable(variable("cluster", "Cluster", "kourou_build_info", multi=False))
    )


def variable(name: str, label: str, metric: str, *, of: str = "", multi: bool = True) -> QueryVariable:
    """The values of a metric's label, `of` or else `name`; All, at first, which also holds for those yet to come."""
    query = f"label_values({metric}, {of or name})"
    return (
        QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .definition(query)
        .query({"query": query, "refId": f"variable-{name}"})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi)
        .include_all(True)
        .all_value(".*")
        .current(_all(multi))
    )


def row(
    board: Dashboard, title: str, *panels: stat.Panel | timeseries.Panel | table.Panel | statetimeline.Panel
) -> None:
    """Panels one after the other, wrapped at the width of the page."""
    board.with_row(dashboard.Row(title))
    for panel in panels:
        board.with_panel(panel)


def number(
    title: str,
    description: str,
    *queries: Query,
    unit: str = NUMBER,
    steps: Steps = NEUTRAL,
    width: int = 3,
    words: Mapping[int, tuple[str, str]] | None = None,
    no_value: str = "–",
) -> stat.Panel:
    """The value now, and how it went. `words` are for values that stand for something: text and colour."""
    panel = (
        _drawn(stat.Panel(), title, description, queries, width=width, height=4)
        .unit(unit)
        .no_value(no_value)
        .thresholds(_thresholds(steps))
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.NONE if words else common_models.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return panel.mappings([_words(words)]) if words else panel


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str = NUMBER,
    width: int = 8,
    stacked: bool = False,
    bars: bool = False,
    line_at: float | None = None,
    no_value: str = "",
) -> timeseries.Panel:
    """Lines from zero up, or bars of a minute at least, with their last and highest values.

    line_at draws a limit; no_value is shown where there is nothing, instead of Grafana's own words.
    """
    panel = (
        _drawn(timeseries.Panel(), title, description, queries, width=width, height=8)
        .unit(unit)
        .min(0)
        .fill_opacity(60 if bars else 25 if stacked else 8)
        .show_points(common_models.VisibilityMode.NEVER)
        .span_nulls(False)
        .draw_style(common_models.GraphDrawStyle.BARS if bars else common_models.GraphDrawStyle.LINE)
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
    )
    if no_value:
        panel.no_value(no_value)
    if bars:
        # A bar is a minute: of a shorter time, increase() has too few samples, and of a longer one they overlap.
        panel.interval("1m")
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if line_at is not None:
        panel.thresholds(_thresholds(Steps("transparent", ((line_at, RED),))))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED))
    return panel


def states(
    title: str,
    description: str,
    query: Query,
    words: Mapping[int, tuple[str, str]],
    *,
    width: int = 12,
    height: int = 8,
) -> statetimeline.Panel:
    """A band for each series, coloured by what its values stand for."""
    return (
        _drawn(statetimeline.Panel(), title, description, [query], width=width, height=height)
        .mappings([_words(words)])
        .show_value(common_models.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().show_legend(False).display_mode(common_models.LegendDisplayMode.HIDDEN))
    )


def listing(
    title: str,
    description: str,
    queries: Mapping[str, Query],
    *,
    units: Mapping[str, str],
    width: int = 24,
    height: int = 8,
) -> table.Panel:
    """A line for each set of labels that the queries have in common; `queries` and `units` by the column's title."""
    panel = _drawn(table.Panel(), title, description, [], width=width, height=height)
    for ref_id, query in zip("ABCDEFGHIJ", queries.values(), strict=False):
        panel.with_target(_target(query, ref_id).instant().format(PromQueryFormat.TABLE))
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    value = "Value #{}" if len(queries) > 1 else "Value"
    renamed = {value.format(ref_id): column for ref_id, column in zip("ABCDEFGHIJ", queries, strict=False)}
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": renamed}
        )
    )
    for column, unit in units.items():
        panel.override_by_name(column, [models.DynamicConfigValue(id_val="unit", value=unit)])
    return panel


def quantile(share: float, metric: str, by: str = "", *, selector: str) -> str:
    """Of a histogram's values; no value, and no NaN, for what was not observed."""
    labels = f"{by}, le" if by else "le"
    return (
        f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{selector}}}[$__rate_interval]))) >= 0"
    )


def rate(metric: str, by: str, selector: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def per_minute(metric: str, by: str, selector: str) -> str:
    """Of what happens every 30 s or so: a rate of seconds would be all or nothing."""
    return f"60 * sum by ({by}) (rate({metric}{{{selector}}}[2m]))"


def or_none(expr: str, label: str) -> str:
    """0 of `none` where it is empty, since there is no topic or group yet."""
    return f'{expr} or on () label_replace(vector(0), "{label}", "none", "", "")'


def _drawn(panel: P, title: str, description: str, queries: Sequence[Query], *, width: int, height: int) -> P:
    panel.title(title).description(description).datasource(DATASOURCE).span(width).height(height)
    for ref_id, query in zip("ABCDEFGHIJ", queries, strict=False):
        panel.with_target(_target(query, ref_id))
    return panel


def _target(query: Query, ref_id: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().datasource(DATASOURCE).ref_id(ref_id).expr(query.expr)
    return target.range().legend_format(query.legend or "__auto")


def _all(multi: bool) -> models.VariableOption:
    if multi:
        return models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return models.VariableOption(selected=True, text="All", value="$__all")


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    levels = [models.Threshold(value=None, color=steps.first)]
    levels += [models.Threshold(value=value, color=color) for value, color in steps.others]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(levels)


def _words(words: Mapping[int, tuple[str, str]]) -> models.ValueMap:
    results = {str(value): models.ValueMappingResult(text=text, color=color) for value, (text, color) in words.items()}
    return models.ValueMap(options=results)


def _mark(name: str, color: str, title: str) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .title_format(title)
        .step("10s")
    )
