"""A segmentation service: POST a NIfTI file (.nii.gz), receive its label map. For a local network; it has no login.

python examples/service.py MODEL [PORT]
curl --data-binary @scan.nii.gz http://127.0.0.1:8000 --output segmentation.nii.gz
"""

import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import swinssl

MOST_BYTES = 2**30


def make_server(model: str | Path, port: int = 8000) -> ThreadingHTTPServer:
    """A server whose threads share one model, which is loaded once."""
    trained = swinssl.load_model(model)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 < length <= MOST_BYTES:
                return self.answer(413, f"send 1 to {MOST_BYTES} bytes".encode())
            with tempfile.TemporaryDirectory() as folder:
                scan, result = Path(folder, "scan.nii.gz"), Path(folder, "segmentation.nii.gz")
                scan.write_bytes(self.rfile.read(length))
                try:
                    trained.predict(scan).save(result)
                except swinssl.UserError as error:
                    return self.answer(400, str(error).replace(f"{folder}/", "").encode())
                return self.answer(200, result.read_bytes())

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    make_server(sys.argv[1], *map(int, sys.argv[2:3])).serve_forever()
