"""`vecbeam serve` over texts: search, filters, pages, JSON, and what it refuses."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from corpora import configure, text, write_jsonl
from served_site import EXTRA, Served, served
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.web.request_query import expression
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms import milvus

for module in EXTRA:
    pytest.importorskip(module, reason="the extra serve is not installed")
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
TOKEN = "a-long-random-token"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    folder = tmp_path_factory.mktemp("served")
    records = [
        {
            "id": f"doc{n}",
            "text": text(n),
            "section": "games" if n % 2 else 'a "quoted" one',
            "year": 2000 + n,
            "new": n > 9,
        }
        for n in range(20)
    ]
    records[3]["text"] += f" {MARKUP}"
    write_jsonl(folder / "corpus" / "a.jsonl", [*records, {"id": "broken"}])
    columns = {"section": "string", "year": "int", "new": "bool"}
    corpus = {"paths": ["corpus/*"], "metadata": columns}
    config = configure(folder, chunk=False, corpus=corpus, verify={"max_rejected": 0.5})
    backfill(config)
    milvus.release(config.collection)
    return config


def path_of(config: Config) -> Path:
    return Path(config.collection.uri).parent / "vecbeam.yaml"


@pytest.fixture(scope="module")
def site(config: Config) -> Iterator[Served]:
    with served(path_of(config), "--other", str(path_of(config))) as site:
        yield site


def test_a_search_shows_cards_with_marked_words_percent_and_reason(site: Served) -> None:
    answer = site.ask(f"/?q={quote(text(4))}")
    assert answer.status == 200
    assert answer.text.count('<li class="card"') == 10
    first = answer.text.split('<li class="card"')[1]
    assert "doc4" in first
    assert f"<mark>{text(4).split()[0]}</mark>" in first
    assert "<strong>100 %</strong>" in first
    assert "of pairs of rows (a sample) are less similar" in first


def test_markup_of_a_document_is_shown_as_text(site: Served) -> None:
    for path in ("/?k=20&q=dog", "/compare?k=20&q=dog", "/duplicates?above=0.01"):
        answer = site.ask(path)
        assert answer.status == 200
        assert "&lt;img src=x onerror=alert(1)&gt;" in answer.text
        assert "<img src=x" not in answer.text
    assert MARKUP not in site.ask(f"/?{urlencode({'q': MARKUP})}").text


def test_filters_are_form_fields(site: Served) -> None:
    query = {
        "q": text(4),
        "where.section": 'a "quoted" one',
        "where.year.from": "2006",
        "where.new": "false",
        "k": "20",
    }
    answer = site.ask(f"/?{urlencode(query)}")
    assert {n for n in range(20) if f"> doc{n}<" in answer.text} == {6, 8}
    assert 'value="a &#34;quoted&#34; one"' in answer.text
    nothing = site.ask("/?q=dog&where.year.from=3000")
    assert "No row matches." in nothing.text


def test_more_like_this(site: Served) -> None:
    answer = site.ask("/?like=doc4%230")
    assert "rows like doc4#0" in answer.text
    assert "> doc4<" not in answer.text


def test_json_has_the_hits_of_the_command_line(site: Served) -> None:
    answer = site.ask("/search", json.dumps({"query": text(5), "k": 2, "filter": "year < 2010"}).encode())
    assert answer.status == 200
    assert answer.json["hits"][0]["item_id"] == "doc5"
    assert set(answer.json["hits"][0]) >= {"id", "score", "text", "year", "importance"}
    like = site.ask("/search", json.dumps({"like": "doc5#0", "k": 1}).encode())
    assert like.json["hits"][0]["item_id"] != "doc5"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "the body has list"),
        (b'{"query": "a", "like": "b"}', "not exactly one of query and like"),
        (b'{"query": 5}', "query is not a text: 5"),
        (b'{"query": "a", "k": 0}', "k is 0"),
        (b'{"query": "a", "k": 101}', "k is 101"),
        (b'{"query": "a", "k": true}', "k is True"),
        (b'{"query": "a", "nearest": 3}', "the body has nearest"),
        (b'{"query": "a", "vector": 3}', "vector is not a name: 3"),
        (b'{"query": "a", "by": "page"}', "by is 'page'"),
        (b'{"query": "a", "by": 1}', "by is not a text: 1"),
        (b'{"query": "a", "answer": "yes"}', "answer is 'yes'"),
        (b'{"like": "doc5#0", "fuzzy": true}', "--fuzzy searches by the words of a text"),
        (b'{"query": "a", "filter": "no such ("}', "Milvus does not understand the filter"),
        (b'{"like": "nothing#0"}', "has no row 'nothing#0'"),
        (b'{"query": "' + b"a" * 9_000 + b'"}', "query has 9,000 characters"),
        (b'{"query": "  "}', "blank"),
    ],
)
def test_a_wrong_body_is_refused(site: Served, body: bytes, said: str) -> None:
    answer = site.ask("/search", body)
    assert answer.status == 400
    assert said in answer.json["error"]["message"]
    assert answer.json["error"]["remedy"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("q=a&k=many", "k is &#39;many&#39;"),
        ("q=a&by=page", "by is &#39;page&#39;"),
        ("q=a&fuzzy=1", "fuzzy: &#39;1&#39; is not true or false"),
        ("q=a&where.author=b", "there is no column &#39;author&#39;"),
        ("q=a&where.year=early", "&#39;early&#39; is not a number"),
        ("q=a&where.new=maybe", "is not true or false"),
        ("q=a&where.section.from=b", "section has no bound"),
        ("like=nothing%230", "has no row"),
    ],
)
def test_a_wrong_form_is_answered_on_the_page(site: Served, query: str, said: str) -> None:
    answer = site.ask(f"/?{query}")
    assert answer.status == 400
    assert said in answer.text
    assert '<form id="search"' in answer.text


def test_runs_rejects_and_comparison_are_pages(site: Served) -> None:
    runs = site.ask("/runs")
    run_id = runs.text.split('href="/runs/')[1].split('"')[0]
    assert "items     21 read = 20 new" in site.ask(f"/runs/{run_id}").text
    assert site.ask("/runs/..%2f..%2fx").status in (400, 404)
    assert "MissingField" in site.ask("/rejects").text or "EmptyText" in site.ask("/rejects").text
    assert '<th scope="col">nDCG@10</th>' in runs.text
    assert "100 % of the items are in both lists" in site.ask(f"/compare?q={quote(text(3))}").text
    like = site.ask("/compare?like=doc3").text
    assert 'value="doc3"' in like
    assert "100 % of the items" in like
    assert "only here" not in like
    assert "the sum" not in site.ask("/").text


def test_the_map_has_all_rows_and_their_colours(site: Served) -> None:
    found = site.ask("/map/points?color=section").json
    assert (len(found["ids"]), found["total"]) == (20, 20)
    assert set(found["names"]) == {"games", 'a "quoted" one'}
    rows = site.ask("/map/rows?id=doc3%230&id=no").json
    assert [row["item_id"] for row in rows] == ["doc3"]
    assert site.ask("/map?color=text").status == 400


def test_every_answer_has_the_rules_of_the_browser(site: Served) -> None:
    for path in ("/", "/static/site.css", "/nothing", "/healthz", "/search"):
        headers = site.ask(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert site.ask("/nothing").status == 404
    assert site.ask("/search").status == 405
    assert site.ask("/static/../application.py").status == 404


def test_another_name_of_the_server_is_refused(site: Served) -> None:
    answer = site.ask("/", Host="attacker.example")
    assert answer.status == 421
    assert "does not answer to the name 'attacker.example'" in answer.json["error"]["message"]


def test_a_request_of_100_mb_is_refused(site: Served) -> None:
    with socket.create_connection(site.address.split("//")[1].strip("/").split(":"), timeout=30) as connection:  # type: ignore[arg-type]
        connection.sendall(b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 104857600\r\n\r\n")
        assert connection.recv(200).startswith(b"HTTP/1.1 413")
    # Without its length, by what arrives.
    chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    with socket.create_connection(site.address.split("//")[1].strip("/").split(":"), timeout=30) as connection:  # type: ignore[arg-type]
        connection.sendall(b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(100):
                connection.sendall(chunk)
        except OSError:
            pass  # the server has hung up
        else:
            pytest.fail("the server took 100 MiB")
    assert site.ask("/healthz").status == 200


def test_the_sender_of_a_large_body_without_a_length_reads_why_it_is_refused(site: Served) -> None:
    chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    with socket.create_connection(site.address.split("//")[1].strip("/").split(":"), timeout=30) as connection:  # type: ignore[arg-type]
        connection.sendall(b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(30):
            connection.sendall(chunk)
        connection.sendall(b"0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"the request has more than 20 MiB" in answer


def test_a_text_corpus_serves_no_file(site: Served) -> None:
    for path in ("/media?id=doc3%230", "/picture?id=doc3%230", "/media?id=..%2f..%2fetc%2fpasswd", "/media"):
        answer = site.ask(path)
        assert answer.status == 404
        assert "has no row" in answer.json["error"]["message"]


def test_a_thousand_requests_eight_at_a_time(site: Served) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: site.ask(f"/?q={quote(text(n % 20))}"), range(1_000)))
    assert {answer.status for answer in found} == {200}
    assert all(f"> doc{n % 20}<" in answer.text for n, answer in enumerate(found) if n % 20 != 3)  # 3 has more words
    metrics = site.ask("/metrics")
    assert metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert 'vecbeam_requests_total{path="/",status="200"}' in metrics.text
    assert metrics.text.endswith("# EOF\n")
    assert site.ask("/healthz").json == {"status": "ok", "alias": "tested"}


def test_another_address_needs_a_token(config: Config, site: Served, tmp_path: Path) -> None:
    command = ["serve", str(path_of(config)), "--host", "0.0.0.0", "--port", "0"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "VECBEAM_SERVE_TOKEN is not set" in result.output
    assert CliRunner().invoke(app, ["serve", str(path_of(config)), "--host", "my.host"]).exit_code == 2


def test_a_port_in_use_is_refused_by_name(config: Config, site: Served) -> None:
    port = site.address.rstrip("/").rpartition(":")[2]
    result = CliRunner().invoke(app, ["serve", str(path_of(config)), "--port", port])
    assert result.exit_code == 2
    assert f"can't listen on 127.0.0.1:{port}: address already in use" in result.output


def test_nothing_published_is_an_error_before_anything_is_served(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "a", "text": "one"}])
    configure(tmp_path)
    result = CliRunner().invoke(app, ["serve", str(tmp_path / "vecbeam.yaml"), "--port", "0"])
    assert result.exit_code == 1
    assert "vecbeam backfill" in result.output


def test_ctrl_c_ends_it_and_frees_the_collection(config: Config, site: Served) -> None:
    """The last test of this file: the fixtures' server ends here."""
    assert site.stop() == (130, "vecbeam: the server was stopped")
    with served(path_of(config), VECBEAM_SERVE_TOKEN=TOKEN) as guarded:
        assert guarded.ask("/").status == 401
        assert guarded.ask("/", Authorization="Bearer wrong").status == 401
        assert guarded.ask("/?token=wrong").status == 401
        assert guarded.ask("/healthz").status == 200
        assert guarded.ask("/", Authorization=f"Bearer {TOKEN}").status == 200
        let_in = guarded.ask(f"/?token={TOKEN}")
        assert (let_in.status, let_in.headers["location"]) == (303, "/")
        assert TOKEN not in let_in.headers["set-cookie"]
        assert "httponly" in let_in.headers["set-cookie"].lower()
        assert guarded.ask("/", Cookie=let_in.headers["set-cookie"].split(";")[0]).status == 200
        assert guarded.stop()[0] == 130


def test_values_of_filters_cannot_change_the_expression(config: Config) -> None:
    assert expression({"where.section": '" or year > 0 or "'}, config) == 'section == "\\" or year > 0 or \\""'
    with pytest.raises(ConfigurationError, match="not a finite number"):
        expression(
            {"where.year": "nan"},
            configure(
                Path(config.collection.uri).parent, corpus={"paths": ["corpus/*"], "metadata": {"year": "float"}}
            ),
        )
