"""The pools of one service: one for each backend that it has, and those of backends that it had."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from marchproxy_application.backends.http2_pool import Http2Pool
from marchproxy_application.backends.pool import Pool
from marchproxy_core.services import HttpVersion

if TYPE_CHECKING:
    from marchproxy_application.serving.service import HttpService
    from marchproxy_core.services import Endpoint


@final
class Pools:
    """Follows the backends of a service."""

    def __init__(self, service: HttpService) -> None:
        """Have none before :meth:`follow`."""
        self._service = service
        self._by_endpoint: dict[Endpoint, Pool | Http2Pool] = {}
        self._left: list[Pool | Http2Pool] = []
        """Of backends that were taken out of the list: they keep what they have, until a flush ends it."""

    def follow(self) -> tuple[Pool | Http2Pool, ...]:
        """Take over which backends the service has now, and which are flushed; return their pools in that order."""
        service, pools = self._service, self._by_endpoint
        carried = service.carried
        wanted = dict(zip(carried.backends, carried.backend_cells, strict=True))
        kind = Http2Pool if service.http.backend_protocol is HttpVersion.HTTP2 else Pool
        for endpoint, pool in tuple(pools.items()):
            if endpoint not in wanted or not isinstance(pool, kind):
                pools.pop(endpoint).close()
                self._left.append(pool)
        for endpoint in carried.flushed:
            if endpoint in pools:
                pools.pop(endpoint).flush()
        self._left = [pool for pool in self._left if not pool.is_empty]
        for pool in tuple(self._left):
            if pool.endpoint in carried.flushed:
                pool.flush()
        for endpoint, cell in wanted.items():
            if endpoint not in pools:
                pools[endpoint] = kind(service, endpoint, cell)
        return tuple(pools[endpoint] for endpoint in carried.backends)

    def look(self, now_s: float) -> None:
        """Close what was idle for too long."""
        for pool in self._by_endpoint.values():
            pool.look(now_s)

    def flush(self) -> None:
        """End everything at once."""
        for pool in self._by_endpoint.values():
            pool.flush()
