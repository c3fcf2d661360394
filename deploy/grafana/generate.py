"""Makes the dashboards in deploy/grafana/dashboards from deploy/grafana/boards: `make dashboards`.

With --check, only compares.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.boards import broker, namesrv, overview, topic

TARGET = Path(__file__).parent / "dashboards"
BOARDS = (overview, broker, topic, namesrv)


def main() -> int:
    made = generate()
    stale = sorted(path for path in made.keys() | set(TARGET.glob("*.json")) if _content(path) != made.get(path))
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path}: not as `make dashboards` makes it", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        if path in made:
            path.write_text(made[path])
        else:
            path.unlink()
    return 0


def generate() -> Mapping[Path, str]:
    """The content of every dashboard, by its path."""
    return {TARGET / f"{module.__name__.rpartition('.')[2]}.json": _rendered(module.board()) for module in BOARDS}


def _rendered(board: Dashboard) -> str:
    built = board.build()
    for number, panel in enumerate(built.panels or (), 1):
        panel.id_val = number
    content = json.loads(json.dumps(built, cls=JSONEncoder))
    for control in (*content["links"], *content["annotations"]["list"]):
        # The SDK hides all of them in a menu. On top of the page is where they are looked for.
        del control["placement"]
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _content(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
