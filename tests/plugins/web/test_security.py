"""Who may see the pages, and hostile names: no page shows a file outside of the lake's runs and logs."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join, local_path
from nightjar.web import reading
from nightjar.web.app import app
from tests.support.hostile import NAMES
from tests.support.pages import addresses, check_login
from tests.support.results import configure, finish

pytestmark = pytest.mark.airflow

HIDDEN = "nobody may read this"
HOSTILE = "<script>alert(1)</script>\"'><img src=http://evil.example/x onerror=a>"


def test_the_addresses_are_those_of_every_route(runs):
    patterns = {route.path for route in app.routes} - {"/runs/try/{folder:path}"}  # it has tests of its own
    missed = {
        each
        for each in patterns
        if not any(address.removeprefix("/nightjar").startswith(each.partition("{")[0]) for address in addresses(runs))
    }
    assert missed == set()


def test_a_route_needs_a_login(site, runs):
    assert all(location.startswith("/auth/login?next=") for location in check_login(site, runs))


def test_a_route_needs_the_right_to_read_the_dag(site, runs):
    nobody, tokens = site.token("nobody"), {role: site.token(role) for role in ("viewer", "user", "op", "admin")}
    for address in addresses(runs):
        refused = site.ask(address, nobody)
        assert (address, refused.status) == (address, 403)
        assert b"shakespeare" not in refused.body
        assert "Forbidden" in site.ask(address, nobody, Accept="text/html").text
        for role, token in tokens.items():
            assert (address, role, site.ask(address, token).status) == (address, role, 200)


def test_nothing_can_be_changed(site, runs, viewer):
    for address in addresses(runs):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert site.ask(address, viewer, method).status == 405


@pytest.fixture(scope="module")
def secrets(site, runs):
    """Files with a secret beside the lake and in it, and links to them."""
    outside = local_path(site.lake.uri).parent / "secret"
    outside.mkdir()
    lake = local_path(site.lake.uri)
    (lake / "datasets").mkdir()
    for folder in (outside, lake / "datasets"):
        for name in ("config.json", "secret.txt", "stats.json"):
            (folder / name).write_text(f'{{"preset": "{HIDDEN}", "corpus": "{HIDDEN}"}}')
    (lake / "runs" / "lab" / "default" / "linked").symlink_to(outside)
    (lake / "runs" / "earlier").symlink_to(outside)
    run = site.lake.run("with-links", "default")
    configure(run, corpus=HOSTILE)
    local_path(run.stats).symlink_to(outside)
    local_path(run.generate).symlink_to(lake / "datasets")
    local_path(run.metrics_parts).parent.mkdir()
    local_path(run.metrics_parts).symlink_to(outside)
    return run


def ways(name):
    """Return how a name can be asked for, as a browser never would."""
    quoted, twice = quote(name, safe="", errors="surrogatepass"), quote(quote(name, safe="", errors="surrogatepass"))
    plain = quote(name, safe="/", errors="surrogatepass")
    for each in dict.fromkeys((quoted, plain, twice)):
        yield f"/nightjar/runs/show/{each}"
        yield f"/nightjar/runs/show/lab/default/{each}"
        yield f"/nightjar/runs/compare?run={each}&run=lab/default/{each}"
        yield f"/nightjar/runs/of?dag_id=train_llm&run_id={each}"
        yield f"/nightjar/runs/of?dag_id={each}&run_id={each}"
        yield f"/nightjar/lake/runs/{each}"
        yield f"/nightjar/lake/{each}"
        yield f"/nightjar/static/{each}"
        yield f"/nightjar/runs?q={each}"


@pytest.mark.long
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(NAMES)
@example("../../secret")
@example("../../../secret/secret.txt")
@example("lab/default/linked")
@example("linked")
@example("earlier")
@example("runs/lab/default/with-links/stats/secret.txt")
@example("../datasets/secret.txt")
@example("datasets/secret.txt")
@example("../../../../etc/passwd")
@example("/etc/passwd")
@example("s3://other/key")
def test_hostile_names_never_lead_out_of_the_lake(site, viewer, secrets, name):
    for address in ways(name):
        answer = site.ask(address, viewer)
        assert answer.status in (200, 307, 400, 404, 422), (address, answer.status, answer.text[:300])
        assert HIDDEN not in answer.text, address
        assert "root:" not in answer.text, address


def test_a_run_whose_files_are_links_has_a_page_without_them(site, viewer, secrets):
    answer = site.ask(f"/nightjar/runs/show/{quote(secrets.folder)}", viewer)
    assert answer.status == 200
    assert HIDDEN not in answer.text
    assert "with-links" in site.ask("/nightjar/runs", viewer).text
    assert HIDDEN not in site.ask("/nightjar/runs", viewer).text


def test_texts_of_runs_are_escaped(site, viewer, secrets):
    for address in ("/nightjar/runs", f"/nightjar/runs/show/{quote(secrets.folder)}"):
        html = site.ask(address, viewer).text
        assert "&lt;script&gt;alert(1)" in html
        assert "<script>alert" not in html
        assert "<img" not in html
    echoed = site.ask(f"/nightjar/runs?q={quote(HOSTILE)}", viewer, Accept="text/html").text
    assert "<img" not in echoed
    assert "<script>alert" not in site.ask(f"/nightjar/runs?sort={quote(HOSTILE)}", viewer, Accept="text/html").text


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path, monkeypatch):
    run = finish(Lake((tmp_path / "lake").as_uri()).run("large", "default"))
    monkeypatch.setattr(reading, "MOST_BYTES", 5000)
    store.write_bytes(join(run.stats, "metrics.csv"), b"x" * 5001)
    report, _ = reading.LakeReader(Lake(run.lake_uri), tmp_path / "cache.json").report(run)
    assert any("metrics.csv: has 5,001 bytes; pages read at most 5,000" in each for each in report.problems)


@given(st.data())
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_a_query_with_any_values_is_answered(site, viewer, runs, data):
    keys = st.sampled_from(["q", "status", "sort", "order", "page", "run", "part", "dag_id", "run_id"])
    query = data.draw(st.lists(st.tuples(keys, st.text(max_size=20)), max_size=5))
    for path in ("/runs", "/runs/compare", "/runs/of"):
        answer = site.ask(f"/nightjar{path}?{urlencode(query, errors='surrogatepass')}", viewer)
        assert answer.status in (200, 400, 404, 422)
