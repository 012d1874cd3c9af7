"""serve.py as a user starts it: its address, how it ends, and what it says of a wrong command line."""

import http.client
import re
import signal
import socket

import pytest
from checkpoints import untrained
from programs import start
from serving import create, encoded, noise

from faceattr.commands.main import add_own_options
from faceattr.errors import FaceattrError

pytest.importorskip("uvicorn", reason="serve is an extra")
from faceattr.commands.serve import _listening


def test_serve_finishes_what_is_under_way_when_it_is_stopped(tmp_path):
    """SIGTERM comes while an image is half sent: it is answered, no new connection is taken, and nothing was written or logged."""
    ckpt, image = untrained(tmp_path / "best.ckpt"), encoded(noise(60, 40))
    (tmp_path / "here").mkdir()
    process = start("serve", f"ckpt={ckpt}", "port=0", cwd=tmp_path / "here")
    try:
        assert process.stdout
        line = process.stdout.readline()
        found = re.fullmatch(r"Serving at http://127\.0\.0\.1:(\d+)  \(Ctrl-C ends it\)\n", line)
        assert found, line
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=120)
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Length", str(len(image)))
        connection.endheaders(image[:100])
        health = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=120)
        while b'"under_way":1' not in _get(health, "/health"):
            pass
        health.request("POST", "/predict", b"no form", {"Content-Type": "multipart/form-data; boundary=x"})
        assert b"The form cannot be read" in health.getresponse().read()
        process.send_signal(signal.SIGTERM)
        while True:  # until it takes no connection
            try:
                socket.create_connection(("127.0.0.1", int(found[1])), timeout=10).close()
            except OSError:
                break
        connection.send(image[100:])
        answer = connection.getresponse()
        assert answer.status == 200 and b'"predicted":' in answer.read()
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err, out) == (143, "Stopped by SIGTERM\n", ""), "no line for the broken form"
        assert not list((tmp_path / "here").rglob("*"))
    finally:
        process.kill()
        process.communicate()


def _get(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    return connection.getresponse().read()


def test_serve_says_which_address_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(FaceattrError, match=rf"host=127\.0\.0\.1 port={port}: .*in use"),
            _listening("127.0.0.1", port),
        ):
            pass
    with (
        pytest.raises(FaceattrError, match=r"host=no\.such\.host\.invalid port=0: "),
        _listening("no.such.host.invalid", 0),
    ):
        pass


def test_serve_warns_where_others_can_reach_it(caplog):
    with _listening("0.0.0.0", 0):
        assert "there is no password and no TLS" in caplog.text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("port=70000", "port=70000"),
        ("serve.queue=0", "serve.queue=0"),
        ("serve.max_pixels=65_000_000", "serve.max_pixels"),
        ("serve.max_byte=1", r"serve\.max_byte.*max_bytes"),
        ("abstain=1.5", "abstain=1.5"),
    ],
)
def test_serve_refuses_values_that_are_out_of_bounds(tmp_path, override, message):
    with pytest.raises(FaceattrError, match=message):
        create(untrained(tmp_path / "best.ckpt"), tmp_path / "run", override)


def test_serve_does_not_take_no_host_for_every_address():
    with pytest.raises(FaceattrError, match=r"host=: give an address"), _listening("", 0):
        pass


def test_serve_needs_a_checkpoint(tmp_path):
    with pytest.raises(FaceattrError, match="there is no such file"):
        create(tmp_path / "absent.ckpt", tmp_path / "run")


def test_serve_serves_one_configuration(tmp_path):
    with pytest.raises(FaceattrError, match=r"serve looks at one configuration\. Leave out -m\."):
        add_own_options("serve", ["-m", f"ckpt={untrained(tmp_path / 'best.ckpt')}", "port=1,2"])
