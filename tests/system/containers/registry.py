# A registry with one image, which it hands out slowly. Says on which port of loopback.
import gzip
import hashlib
import io
import json
import os
import tarfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MIB = 1 << 20
TYPES = "application/vnd.docker."


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def archive(name, content):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


root = archive("filler", os.urandom(10 * MIB))
layer = gzip.compress(root, 1)
config = json.dumps({
    "architecture": "amd64", "os": "linux", "config": {},
    "rootfs": {"type": "layers", "diff_ids": [digest(root)]},
}).encode()
manifest = json.dumps({
    "schemaVersion": 2,
    "mediaType": TYPES + "distribution.manifest.v2+json",
    "config": {
        "mediaType": TYPES + "container.image.v1+json",
        "size": len(config), "digest": digest(config),
    },
    "layers": [{
        "mediaType": TYPES + "image.rootfs.diff.tar.gzip",
        "size": len(layer), "digest": digest(layer),
    }],
}).encode()


class Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", digest(body))
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(0, len(body), MIB):
            self.wfile.write(body[start:start + MIB])
            if len(body) > MIB:
                time.sleep(0.3)

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        if self.path == "/v2/":
            self.answer(200, b"{}")
        elif "/agent/manifests/" in self.path:
            self.answer(200, manifest, TYPES + "distribution.manifest.v2+json")
        elif name == digest(config):
            self.answer(200, config)
        elif name == digest(layer):
            self.answer(200, layer, "application/octet-stream")
        else:
            self.answer(404, b'{"errors": [{"code": "NAME_UNKNOWN", "message": "no such image"}]}')

    do_HEAD = do_GET


server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
print(server.server_port, flush=True)
server.serve_forever()
