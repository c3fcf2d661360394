"""`kourou dev` shows all three services at one address."""

import re
import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.cluster import Dev


def test_all_services_in_one_text(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev()
    found = re.search(r"http://\S+/metrics", dev.node.output)
    assert found is not None, dev.node.output
    families = {family.name: family for family in text_string_to_metric_families(read(found[0]))}
    for name in ("kourou_build_info", "process_resident_memory_bytes", "rocketmq_processor_watermark"):
        assert {sample.labels["node_type"] for sample in families[name].samples} == {"nameserver", "broker", "admin"}
    [brokers] = families["kourou_namesrv_brokers"].samples
    assert brokers.value == 1
    assert "rocketmq_topic_number" in families
    assert read(found[0].replace("/metrics", "/health")) == "ok\n"


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()
