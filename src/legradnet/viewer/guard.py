"""What stands before every route: this server's own Host and Origin only, and headers that bind the browser."""

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",  # no film of a patient in the cache of a browser
}
_ENTRANCE = "/"  # where a link from elsewhere may lead
_SITES = ("same-origin", "none")


class Guard:
    """Middleware that refuses what comes by way of another site.

    Args:
        app: What is guarded.
        hosts: What a Host header may be, with its port.
        scheme: http or https.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], scheme: str) -> None:
        self.app = app
        self.hosts = {host.lower() for host in hosts}
        self.scheme = scheme

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def bound(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if words := self._refusal(scope):
            refusal = JSONResponse({"error": words}, 403, {"Connection": "close"})
            await refusal(scope, receive, bound)
            return
        await self.app(scope, receive, bound)

    def _refusal(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        hosts = [host.lower() for host in headers.getlist("host")]
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            return "This server answers under its own address only."
        own = f"{self.scheme}://{hosts[0]}"  # not another name of this machine: who knows who listens there
        if any(origin.lower() != own for origin in headers.getlist("origin")):
            return "This was asked for by another site."
        is_entrance = scope["method"] == "GET" and scope["path"] == _ENTRANCE
        if not is_entrance and any(site.lower() not in _SITES for site in headers.getlist("sec-fetch-site")):
            return "This was asked for by another site."
        return ""
