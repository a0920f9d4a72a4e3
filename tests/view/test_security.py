"""Nobody gets in without the token, under a foreign name, from a foreign page, or out of the runs that were named."""

from __future__ import annotations

import http.client
import shutil
from urllib.parse import urlsplit

import pytest

from stratoscope.errors import SettingError
from stratoscope.view.runs import Runs
from stratoscope.view.security import Guard
from stratoscope.view.serving import Serving

INSIDE = ("/", "/view.js", "/api/runs", "/api/runs/first", "/api/events?run=first")


@pytest.mark.parametrize("path", INSIDE)
def test_no_token_is_refused(ask, path):
    answer = ask(path, headers={})
    assert answer.status == 403
    assert b"first run" not in answer.read()


@pytest.mark.parametrize("given", ["", "x", "wrong" * 10])
def test_a_wrong_token_is_refused(ask, given):
    assert ask(f"/api/runs?token={given}", headers={}).status == 403
    assert ask("/api/runs", headers={"Authorization": f"Bearer {given}"}).status == 403
    assert ask("/api/runs", headers={"Cookie": f"stratoscope-1={given}; broken"}).status == 403


def test_the_token_is_exchanged_for_a_strict_cookie_and_leaves_the_address(ask, serving):
    answer = ask(f"/?token={serving.token}&x=1", headers={})
    assert (answer.status, answer.headers["location"]) == (303, "/?x=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    held = cookie.split(";")[0]
    assert held.startswith(f"stratoscope-{serving.port}=")
    assert ask("/api/runs", headers={"Cookie": held}).status == 200


def test_the_address_of_the_opened_browser_works_once(ask, serving):
    path = serving.address_for_once().split(str(serving.port))[1]
    assert serving.token not in path
    first = ask(path, headers={})
    assert first.status == 303
    assert ask("/api/runs", headers={"Cookie": first.headers["set-cookie"].split(";")[0]}).status == 200
    assert ask(path, headers={}).status == 403
    assert ask("/api/runs", headers={"Authorization": f"Bearer {path.split('=')[1]}"}).status == 403
    assert ask(serving.address_for_once().split(str(serving.port))[1], headers={}).status == 303


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1:1", "", "127.0.0.1.evil.example"])
def test_another_host_is_refused(ask, serving, host):
    headers = {"Host": host, "Authorization": f"Bearer {serving.token}"}
    assert ask("/api/runs", headers=headers).status == 400


@pytest.mark.parametrize("name", ["Host", "Origin"])
def test_of_two_names_both_have_to_be_its_own(serving, name):
    own = f"127.0.0.1:{serving.port}" if name == "Host" else f"http://127.0.0.1:{serving.port}"
    for values in ((own, "http://evil.example"), ("http://evil.example", own), *([()] if name == "Host" else [])):
        connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=20)
        connection.putrequest("GET", "/api/runs", skip_host=name == "Host")
        for value in values:
            connection.putheader(name, value)
        connection.putheader("Authorization", f"Bearer {serving.token}")
        connection.endheaders()
        with connection.getresponse() as answer:
            assert answer.status == (400 if name == "Host" else 403), values
            assert b"first run" not in answer.read()
        connection.close()


def through(port, headers, query=b"", path="/", kind="http"):
    """The status and headers of a guard's own answer; those of what it guards have status 0."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 0, "headers": []})

    async def send(message):
        sent.append(message)

    pairs = headers.items() if isinstance(headers, dict) else headers
    given = [(name.encode(), value.encode()) for name, value in pairs]
    scope = {"type": kind, "method": "GET", "path": path, "query_string": query, "headers": given}
    with pytest.raises(
        StopIteration
    ):  # nothing in it waits, so it needs no loop, which a test in a browser may be running
        Guard(app, "secret", port)(scope, None, send).send(None)
    return (sent[0]["status"], dict(sent[0]["headers"])) if sent else None


def test_at_the_usual_port_its_name_has_none():
    key = {"authorization": "bearer secret"}
    assert through(80, {"host": "localhost", "origin": "http://localhost", **key})[0] == 0
    assert through(80, {"host": "localhost:80", **key})[0] == 0
    assert through(81, {"host": "localhost", **key})[0] == 400
    assert through(81, {"host": "localhost:81", "origin": "http://localhost", **key})[0] == 403
    assert through(81, {"host": "localhost:81", "authorization": "Basic secret"})[0] == 403


def test_two_hosts_are_refused_whatever_listens():
    for hosts in (("localhost", "evil.example"), ("evil.example", "localhost"), ()):
        headers = [*(("host", host) for host in hosts), ("authorization", "bearer secret")]
        assert through(80, headers)[0] == 400


def test_what_is_no_request_for_a_page_gets_no_answer():
    assert through(80, {"host": "localhost", "authorization": "bearer secret"}, kind="websocket") is None


def test_the_rest_of_the_address_stays():
    status, headers = through(80, {"host": "localhost"}, b"a=&token=secret&b=1&a=2&c=%C3%A9", "/x/y")
    assert (status, headers[b"location"]) == (303, b"/x/y?a=&a=2&b=1&c=%C3%A9")
    assert b"Path=/" in headers[b"set-cookie"]


@pytest.mark.parametrize("path", ["/\\evil.example", "///evil.example", "/\t/evil.example", "/\r\nX-Evil: 1"])
def test_no_path_leads_elsewhere_or_adds_a_header(path):
    status, headers = through(80, {"host": "localhost"}, b"token=secret", path)
    assert status == 303
    assert headers[b"location"].startswith(b"/")
    assert not headers[b"location"].startswith((b"//", b"/\\"))
    assert not set(headers[b"location"]) & set(b"\r\n\t\\")


def test_localhost_is_this_machine(ask, serving):
    headers = {"Host": f"localhost:{serving.port}", "Authorization": f"Bearer {serving.token}"}
    assert ask("/api/runs", headers=headers).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_another_origin_is_refused(ask, serving, origin):
    headers = {"Origin": origin, "Authorization": f"Bearer {serving.token}"}
    assert ask("/api/runs", headers=headers).status == 403
    own = {"Origin": f"http://127.0.0.1:{serving.port}", "Authorization": f"Bearer {serving.token}"}
    assert ask("/api/runs", headers=own).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../outside.html", "/%2e%2e/outside.html", "/..%2foutside.html", "/.sources", "//etc/passwd", "/etc/passwd",
        "/static/../../outside.html", "/api/runs/..%2f..", "/api/runs/unknown", "/api/runs/first/variable?key=..%2f&name=x",
        "/api/runs/first/charts?id=../x", "/api/runs/first/variable?key=probe&name=unknown", "/a%00.js", "/" + "a" * 300 + ".js",
        "/..%5coutside.html", "/view.js/", "/index.html%00",
    ],
)  # fmt: skip
def test_there_is_no_way_out(ask, path):
    answer = ask(path)
    assert answer.status == 404
    assert b"outside" not in answer.read()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "ODD"])
def test_it_is_only_read_from(ask, method):
    for headers in (None, {}):  # nobody is told more for having the token
        answer = ask("/api/runs", headers=headers, method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
        assert answer.read() == b"This server is only read from."


@pytest.mark.parametrize("path", ["/", "/api/runs", "/nothing"])
def test_every_answer_carries_the_policy(ask, path):
    headers = ask(path).headers
    own = dict.fromkeys(("script-src", "style-src", "connect-src", "font-src", "worker-src"), "'self'")
    nobody = dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'")
    parts = (part.strip().partition(" ") for part in headers["content-security-policy"].split(";"))
    assert {name: rest for name, _, rest in parts} == {"img-src": "'self' data: blob:", **own, **nobody}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    # a page at another port of this machine is of the same site, and its cookie comes along
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path):
    shutil.copytree(folder / "first", tmp_path / "elsewhere" / "hidden")
    (folder / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert {run.id for run in Runs([folder]).scan()} == {"first", "deep-second"}


def test_a_port_that_is_taken(serving, folder, bundle):
    with pytest.raises(SettingError, match="choose another --port"):
        Serving(Runs([folder]), bundle, port=serving.port)


def test_cookies_of_other_servers_do_no_harm(ask, serving):
    own = f"stratoscope-{serving.port}={serving.token}"
    for cookie in (
        f"stratoscope-{serving.port}=old; {own}",
        f"{own}; stratoscope-{serving.port}=old",
        f'other={{"a": [1, 2]}}; {own}',
        f"a,b; =; ;; {own}",
    ):
        assert ask("/api/runs", headers={"Cookie": cookie}).status == 200
    assert ask("/api/runs", headers={"Cookie": f"stratoscope-{serving.port}0={serving.token}"}).status == 403


def test_the_way_in_leads_to_no_other_host(ask, serving):
    answer = ask(f"//evil.example/x?token={serving.token}", headers={})
    assert (answer.status, answer.headers["location"]) == (303, "/evil.example/x")


def test_a_link_on_another_site_is_followed_once_more_from_here(ask):
    from_there = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = ask("/", headers=from_there)
    assert answer.status == 403
    assert b'http-equiv="refresh"' in answer.read()
    for other in ({"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Mode": "no-cors"}):
        assert b"refresh" not in ask("/", headers=from_there | other).read()


def test_a_query_that_is_huge(ask, serving):
    assert ask("/api/runs?" + "a=b&" * 5000, headers={}).status == 403
    assert ask("/api/runs?" + "a=b&" * 5000).status == 200


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", ["127.0.0.1", "localhost", "LOCALHOST"]),
        ("127.0.0.2", ["127.0.0.2"]),
        ("::1", ["[::1]", "localhost"]),
        ("0.0.0.0", ["127.0.0.1"]),
    ],
)
def test_a_server_answers_to_the_names_it_prints(folder, bundle, host, names):
    try:
        serving = Serving(Runs([folder]), bundle, host=host)
    except SettingError as error:
        pytest.skip(str(error))
    with serving:
        printed = urlsplit(serving.address)
        for name in [printed.netloc.rsplit(":", 1)[0], *names]:
            connection = http.client.HTTPConnection(printed.hostname, printed.port, timeout=20)
            headers = {"Host": f"{name}:{serving.port}", "Authorization": f"Bearer {serving.token}"}
            connection.request("GET", "/api/runs", headers=headers)
            with connection.getresponse() as answer:
                assert answer.status == 200, name
            connection.close()
