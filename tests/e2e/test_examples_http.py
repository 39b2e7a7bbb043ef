"""The examples that talk to a server, against one."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SENSOR = EXAMPLES / "sensor" / "sensor.yaml"

RunJob = Callable[..., dict[str, Any]]


class Shop(ThreadingHTTPServer):
    """A small REST service: orders, customers, and an export that appears at the fourth look."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ShopHandler)
        self.orders: dict[str, dict[str, Any]] = {}
        self.customers: dict[str, dict[str, Any]] = {}
        self.export = "id,total\n1,20\n2,30\n"
        self.looks_until_export = 4
        self.looks = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Returns status and body."""
        match method, path.partition("?")[0].strip("/").split("/"):
            case "POST", ["orders"]:
                order = {**body, "id": f"o{len(self.orders) + 1}", "total": 3 * len(body["items"])}
                return 201, self.orders.setdefault(order["id"], order)
            case "GET", ["orders", order_id]:
                return 200, self.orders[order_id]
            case "PATCH", ["orders", order_id]:
                self.orders[order_id].update(body)
                return 200, self.orders[order_id]
            case "GET", ["customers", name]:
                return (200, self.customers[name]) if name in self.customers else (404, {"error": "no such customer"})
            case "PUT", ["customers", name]:
                return 201, self.customers.setdefault(name, body)
            case "GET", ["export.csv"]:
                self.looks += 1
                return (200, self.export) if self.looks >= self.looks_until_export else (404, "")
        return 405, {"error": "no such route"}


class ShopHandler(BaseHTTPRequestHandler):
    """Passes requests to the shop."""

    server: Shop

    def respond(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        status, answer = self.server.answer(self.command, self.path, body)
        is_text = isinstance(answer, str)
        data = (answer if is_text else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/csv" if is_text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = respond  # noqa: N815 - the names are the base class's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keeps the tests quiet."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run_workflow(run_job: RunJob, shop: Shop, customer: str) -> dict[str, Any]:
    file = EXAMPLES / "http-workflow" / "http-workflow.yaml"
    return run_job(file, "-p", f"base_url={shop.url}", "-p", f"customer={customer}")


def test_http_workflow_registers_an_unknown_customer_and_confirms_the_order(run_job: RunJob, shop: Shop) -> None:
    job = run_workflow(run_job, shop, "ada")
    assert {name: task["exit_code"] for name, task in job["tasks"].items()} == {
        "create": 201,
        "read": 200,
        "find-customer": 404,
        "register": 201,
        "confirm": 200,
    }
    assert shop.customers == {"ada": {"name": "ada", "first_order": "o1"}}
    assert (shop.orders["o1"]["state"], shop.orders["o1"]["total"]) == ("confirmed", 6)


def test_http_workflow_skips_the_registration_of_a_known_customer(run_job: RunJob, shop: Shop) -> None:
    shop.customers["bob"] = {"name": "bob"}
    job = run_workflow(run_job, shop, "bob")
    assert job["tasks"]["register"]["state"] == "SKIPPED"
    assert job["tasks"]["confirm"]["state"] == "COMPLETED"
    assert shop.orders["o1"]["state"] == "confirmed"


def test_sensor_polls_until_the_export_appears_and_then_counts_its_rows(run_job: RunJob, shop: Shop) -> None:
    job = run_job(SENSOR, "-p", f"export_url={shop.url}/export.csv")
    assert job["tasks"]["wait-for-export"]["attempt"] == 4
    assert job["tasks"]["fetch"]["outputs"]["row_count"] == 2
    assert job["state"] == "COMPLETED"


def test_sensor_fails_with_a_code_of_its_own_where_the_export_is_empty(run_job: RunJob, shop: Shop) -> None:
    shop.export = "id,total\n"
    job = run_job(SENSOR, "-p", f"export_url={shop.url}/export.csv", exit_code=1)
    assert (job["state"], job["error_code"]) == ("FAILED", "ERR_EMPTY_EXPORT")


def test_sensor_gives_up_when_its_polls_are_used_up(run_job: RunJob, shop: Shop) -> None:
    shop.looks_until_export = 1000
    job = run_job(SENSOR, "-p", f"export_url={shop.url}/export.csv", exit_code=1)
    assert job["tasks"]["wait-for-export"]["state"] == "FAILED"
    assert shop.looks == 21
