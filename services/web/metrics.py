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
        # Finding a counter by its labels takes longer than counting.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._streams = Gauge("membridge_http_streams", "Open streams.", ("kind",), registry=self.registry)

    def streams(self, kind: str, more: int) -> None:
        """Count so many more open streams."""
        self._streams.labels(kind).inc(more)

    def answered(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """Count an answer; a stream, which lasts as long as its client likes, took no seconds."""
        counter = self._counters.get((route, method, status))
        if counter is None:
            known = method if method in _METHODS else "other"
            counter = self._requests.labels(route, known, str(status))
            if known == method:
                self._counters[route, method, status] = counter
        counter.inc()
        if seconds is not None:
            histogram = self._histograms.get(route)
            if histogram is None:
                histogram = self._histograms[route] = self._seconds.labels(route)
            histogram.observe(seconds)

    def render(self) -> str:
        """Return what Prometheus reads."""
        return generate_latest(self.registry).decode()
