"""Runs commands with the official client, unchanged, side by side, until its standard input ends. A process of its own:
its protocol buffers and ours have the same names.

Each line of the input is a JSON object: {"run": number, "command": name, "endpoints": ..., "arguments": {...}} begins
one, {"run": number, "order": {...}} tells it something while it runs. On standard output each line is a result of one,
{"run": number, "result": {...}}, or says that it ended: {"run": number, "done": true}, or with "error" and a text.
"""

import json
import os
import sys
import threading
import traceback
from typing import Any

from tests.compat.python.listening import listen
from tests.compat.python.orders import Orders, Results
from tests.compat.python.producing import produce
from tests.compat.python.receiving import simple

COMMANDS = {"produce": produce, "listen": listen, "simple": simple}


class Main:
    def __init__(self) -> None:
        self._running: dict[int, Orders] = {}
        self._writing = threading.Lock()

    def take(self, said: dict[str, Any]) -> None:
        run = said["run"]
        if "command" in said:
            orders = self._running[run] = Orders()
            threading.Thread(target=self._run, args=(run, said, orders), daemon=True).start()
        elif run in self._running:
            self._running[run].say(said["order"])

    def _run(self, run: int, said: dict[str, Any], orders: Orders) -> None:
        def write(**what: Any) -> None:
            with self._writing:
                print(json.dumps({"run": run, **what}), flush=True)

        results = Results(lambda result: write(result=result))
        try:
            COMMANDS[said["command"]](said["endpoints"], said["arguments"], orders, results)
        except Exception:
            write(error=traceback.format_exc())
        else:
            write(done=True)
        finally:
            del self._running[run]


if __name__ == "__main__":
    main = Main()
    for line in sys.stdin:
        main.take(json.loads(line))
    os._exit(0)  # threads of the client may live on after its clients are closed
