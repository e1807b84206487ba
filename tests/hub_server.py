"""As much of a hub as its client asks for: files of one repository, with the headers that make them cacheable."""

import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789" * 4


class Hub:
    """What is asked of it, `GET /OWNER/NAME/resolve/REVISION/FILE`, is kept in `asked`.

    Args:
        files: Content by name.
        refused: {part of a path: the hub's word for what is wrong with it}, `{"/no-such/": "RepoNotFound"}`.
    """

    def __init__(self, files, refused=()):
        self.files, self.refused, self.asked = files, dict(refused), []
        self.address = ""

    def answer(self, request, *, with_content):
        self.asked.append(f"{request.command} {request.path}")
        content = self.files.get(request.path.rpartition("/")[2])
        wrong = next((word for part, word in self.refused.items() if part in request.path), None)
        wrong = wrong or ("EntryNotFound" if content is None else None)
        request.send_response(404 if wrong else 200)
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header(
            *(("X-Error-Code", wrong) if wrong else ("ETag", f'"{hashlib.sha256(content).hexdigest()}"'))
        )
        request.send_header("Content-Length", "0" if wrong else str(len(content)))
        request.end_headers()
        if with_content and not wrong:
            request.wfile.write(content)


@contextmanager
def served(files, refused=()):
    """A hub on 127.0.0.1 while the block runs."""
    hub = Hub(files, refused)

    class Asked(BaseHTTPRequestHandler):
        def do_HEAD(self):
            hub.answer(self, with_content=False)

        def do_GET(self):
            hub.answer(self, with_content=True)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
