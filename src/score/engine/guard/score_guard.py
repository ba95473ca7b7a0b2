"""What a shared vLLM answers at all. It asks for its key below /v1 only, and there are other ways to its model.

Alone in its folder, which is put on the server's path: vLLM may live in an environment that has nothing of ours.
"""

OPEN = ("/health", "/version")


class Guard:
    """ASGI middleware (vLLM's --middleware): the API below /v1 and what tells of the server; nothing else is there."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        path = scope.get("path", "")
        if scope["type"] == "lifespan" or path.startswith("/v1/") or path in OPEN:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1008})
