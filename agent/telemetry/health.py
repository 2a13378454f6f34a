"""What the outside may ask the agent over HTTP: `/healthz` for the managed instance group, `/metrics` for Prometheus.

    health = Health(state_dir=Path("/var/lib/spot"))
    health.serve(port=9100)
    health.set_trainer(running=True, stepping=True); health.set_step(41)

The setters cost microseconds and may be called from any thread. The server is a thread of its own and answers even
while the event loop is busy; a loop that no longer tells steps shows as a heartbeat that is too old.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 150, 300)


class Health:
    """The facts, as the daemon tells them. `stale_after` seconds without a step the trainer counts as not stepping;
    `state_dir` is the folder whose disk is watched. Each has its own registry, so tests can have many."""

    def __init__(
        self,
        *,
        state_dir: Path = Path("/"),
        stale_after: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._stale_after = stale_after
        self._server: WSGIServer | None = None
        self._running = self._stepping = False
        self._at = 0
        self._beat = clock()
        self._proved = False
        self._phase: tuple[str, float, float] | None = None
        self._why = "the agent is starting"
        registry = CollectorRegistry()
        self._metrics = make_wsgi_app(registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"spot_{name}", text, registry=registry)

        def count(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"spot_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(f"spot_{name}_seconds", text, buckets=_SECONDS, registry=registry)

        gauge("healthy", "1 while the trainer is restored and stepping").set_function(lambda: not self.why_unhealthy())
        gauge("heartbeat_age_seconds", "Since the trainer last told of a step").set_function(
            lambda: self._clock() - self._beat
        )
        self._step = gauge("step", "Optimizer updates done")
        self._committed = gauge("committed_step", "Step of the newest checkpoint committed in the bucket")
        self._notices = count("notices", "Notices heard, by cause", "cause")
        self._incidents = count("incidents", "Interruptions of the run, by kind", "kind")
        self._restarts = count("restarts", "Starts of the trainer after its first, by cause", "cause")
        self._uploaded = count("uploaded_bytes", "Bytes of committed checkpoints sent to the bucket")
        self._stage = seconds("stage", "Copying a snapshot into the arena: what training waits for")
        self._durable = seconds("durable", "From staged to committed in the bucket")
        self._restore = seconds("restore", "From asking for a checkpoint to having it loaded")
        registry.register(_MachineFacts(state_dir))

    def set_trainer(self, *, running: bool, stepping: bool, why: str = "") -> None:
        """`stepping`: restored, and its step numbers grow. `why` (optional) says what it does instead."""
        self._running, self._stepping = running, stepping
        self._proved = self._proved or (running and stepping)
        self._why = why or ("the trainer is starting or restoring" if running else "no trainer is running")
        self._beat = self._clock()

    def set_phase(self, phase: str, *, limit_s: float | None = None) -> None:
        """What the trainer does now. `limit_s`: it makes no steps meanwhile, and may take so long; None: it steps."""
        self._phase = None if limit_s is None else (phase, limit_s, self._clock())

    def set_step(self, step: int) -> None:
        """Optimizer updates done; counts as the trainer's heartbeat."""
        self._at = step
        self._step.set(step)
        self._beat = self._clock()

    def set_committed(self, step: int) -> None:
        """The newest checkpoint that is known to be in the bucket."""
        self._committed.set(step)

    def observe_commit(self, step: int, stage_s: float, durable_s: float, size: int) -> None:
        """A checkpoint was committed: seconds to copy it, from there to the commit, and bytes sent."""
        self._committed.set(step)
        self._stage.observe(stage_s)
        self._durable.observe(durable_s)
        self._uploaded.inc(size)

    def observe_restore(self, step: int, seconds: float) -> None:
        """The trainer has the checkpoint of `step`, `seconds` after it was asked for."""
        self._committed.set(step)
        self._restore.observe(seconds)

    def count_notice(self, cause: str) -> None:
        self._notices.labels(cause).inc()

    def count_incident(self, kind: str) -> None:
        self._incidents.labels(kind).inc()

    def count_restart(self, cause: str) -> None:
        self._restarts.labels(cause).inc()

    def why_unhealthy(self) -> str:
        """Empty while the trainer is restored and stepping, else the reason.

        Once a trainer has stepped on this VM, a phase without steps counts as well while it is within its limit: the
        agent acts at the limit, and the group must not be faster.
        """
        if self._running and self._proved and self._phase:
            phase, limit, since = self._phase
            age = self._clock() - since
            return f"{phase} for {age:.0f} s, more than {limit:g} s" if age > limit else ""
        if not (self._running and self._stepping):
            return self._why
        age = self._clock() - self._beat
        return f"no step for {age:.0f} s, more than {self._stale_after:g} s" if age > self._stale_after else ""

    def serve(self, port: int, *, host: str = "0.0.0.0") -> int:  # noqa: S104 - the group's prober is another host
        """Answer HTTP from a daemon thread; port 0 takes a free one. Returns the port. `OSError` if it is taken."""
        try:
            self._server = make_server(host, port, self._answer, _Server, _Handler)
        except OSError as error:
            error.add_note(f"health endpoint {host}:{port}: choose another port (0: any free one)")
            raise
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True).start()
        return self._server.server_port

    def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start)
            return answer
        if path == "/healthz":
            reason = self.why_unhealthy()
            status = "503 Service Unavailable" if reason else "200 OK"
            body = json.dumps({"healthy": not reason, "reason": reason, "step": self._at})
        else:
            status, body = "404 Not Found", json.dumps({"paths": ["/healthz", "/metrics"]})
        start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body.encode()]


class _MachineFacts(Collector):
    """Memory, disk and network as psutil sees them at the time of the scrape."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        memory = psutil.virtual_memory()
        network = psutil.net_io_counters()
        yield _gauge("agent_private_bytes", "Memory only the agent uses", self._process.memory_full_info().uss)
        cpu = self._process.cpu_times()
        yield _total("agent_cpu_seconds", "Processor time of the agent", cpu.user + cpu.system)
        yield _gauge("memory_bytes", "Memory of the machine", memory.total)
        yield _gauge("memory_available_bytes", "Memory that can be had without swapping", memory.available)
        for name, folder in (("state", self._state_dir), ("shm", Path("/dev/shm"))):  # noqa: S108 - arenas live there
            try:
                disk = psutil.disk_usage(str(folder))
            except OSError:
                continue  # not made yet
            yield _gauge(f"{name}_disk_bytes", f"Size of the file system of {folder}", disk.total)
            yield _gauge(f"{name}_disk_free_bytes", f"Free on the file system of {folder}", disk.free)
        if network is not None:
            yield _total("network_sent_bytes", "Sent by the machine since boot", network.bytes_sent)
            yield _total("network_received_bytes", "Received by the machine since boot", network.bytes_recv)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"spot_{name}", text, value=value)


def _total(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"spot_{name}", text, value=value)


class _Server(ThreadingWSGIServer):
    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # WSGIServer's looks up our own name too: seconds where DNS is away
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up or says nothing is no error of ours; anything else keeps its traceback."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(WSGIRequestHandler):
    timeout = 5  # seconds until a silent client loses its thread

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a prober asks every few seconds."""
