"""A registry on loopback with one image, which a scene has made: for pulls without a network and without a program."""

from __future__ import annotations

import http.server
import json
import threading

from tests.faults.scene import Scene


class LayoutRegistry:
    """Serves the image `name` from a directory in OCI layout, which it makes from the archive of the scene."""

    def __init__(self, scene: Scene, name: str) -> None:
        repository = name.rpartition(":")[0]
        layout = scene.files / "layout"
        scene.must("load", "-q", "-i", str(scene.files / "image.tar"))
        scene.must("save", "--format", "oci-dir", "-o", str(layout), "faults/loaded:1")
        scene.must("rmi", "faults/loaded:1")
        digest = json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]

        class Handler(http.server.BaseHTTPRequestHandler):
            """What a pull asks for."""

            def do_GET(self) -> None:
                """A manifest, a blob, or the word that this is a registry."""
                path = self.path.removeprefix(f"/v2/{repository}")
                kind, wanted = path.strip("/").partition("/")[::2]
                if kind == "manifests":
                    wanted = digest
                blob = layout / "blobs/sha256" / wanted.rpartition(":")[2]
                content = b"{}" if self.path == "/v2/" else blob.read_bytes() if blob.is_file() else None
                self.send_response(404 if content is None else 200)
                if kind == "manifests" and content is not None:
                    self.send_header("Content-Type", json.loads(content)["mediaType"])
                self.send_header("Docker-Content-Digest", wanted)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content or b"")

            do_HEAD = do_GET

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
