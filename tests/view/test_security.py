"""Nobody gets in without the token, under a foreign name, from a foreign page, or out of the runs that were named."""

from __future__ import annotations

import http.client
import shutil
from urllib.parse import urlsplit

import pytest

from stratoscope.errors import SettingError
from stratoscope.view.runs import Runs
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


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_is_only_read_from(ask, method):
    assert ask("/api/runs", method=method).status == 405


@pytest.mark.parametrize("path", ["/", "/api/runs", "/nothing"])
def test_every_answer_carries_the_policy(ask, path):
    headers = ask(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
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
    assert b"refresh" not in ask("/", headers=from_there | {"Sec-Fetch-Site": "same-origin"}).read()


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
