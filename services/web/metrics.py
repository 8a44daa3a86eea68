"""A server's counters, in the text form that Prometheus reads."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from services.web.limits import Flights

#: Bounds of the histogram of answer times, in seconds.
BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Methods that are counted by name; a client may invent others.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one application; `registry` takes a service's own."""

    def __init__(self, flights: Flights) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "membridge_http_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "membridge_http_request_seconds", "Time to answer.", ("route",), buckets=BUCKETS, registry=self.registry
        )
        in_flight = Gauge("membridge_http_requests_in_flight", "Requests being answered.", registry=self.registry)
        in_flight.set_function(lambda: len(flights))
        self._streams = Gauge("membridge_http_streams", "Open streams.", ("kind",), registry=self.registry)

    def streams(self, kind: str, more: int) -> None:
        """Count so many more open streams."""
        self._streams.labels(kind).inc(more)

    def answered(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """Count an answer; a stream, which lasts as long as its client likes, took no seconds."""
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        if seconds is not None:
            self._seconds.labels(route).observe(seconds)

    def render(self) -> str:
        """Return what Prometheus reads."""
        return generate_latest(self.registry).decode()
