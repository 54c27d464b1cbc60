import base64
import hashlib
import html
import html.parser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.report.sample import SOURCE, not_refuted, refuted

from unmask.audit.records import ExampleTable, MaskingFinding, Report
from unmask.report.html import place, render, source_lines, write_html
from unmask.report.radius import accuracy_against_radius, share_beyond

VOID = {"meta", "img", "br", "link", "input", "hr"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
AXE = os.environ.get("UNMASK_AXE", "")
PAYLOAD = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


class Page(html.parser.HTMLParser):
    """Collects tags and text, and checks that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def report(tmp_path) -> Report:
    return refuted(tmp_path / "source.py")


def test_the_verdict_stands_first_in_plain_words(report):
    body = Page(render(report)).words.partition("test · 500 examples")[2]
    order = [
        "Refuted", "The claim of 83 % does not hold. At most 4.2 % of 500 examples survive",
        "A standard attack reports 89.8 %: 85.6 points too many", "Where the gradient is masked",
        "Shattered gradient · torch.round", "Accuracy and gradient", "Adversarial examples", "Controls",
        "Attacks",
        "Cost", "Environment", "Do it yourself", "unmask audit quantized_digits.py:defended", "unmask verify",
    ]  # fmt: skip
    places = [body.find(part) for part in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)


def test_the_users_line_is_marked_in_its_context(report):
    lines = source_lines(report.masking[0])
    assert [line.number for line in lines] == [6, 7, 8, 9]
    assert [line.text for line in lines] == SOURCE.splitlines()[5:9]
    assert [line.guilty for line in lines] == [False, False, True, False]
    marked = re.findall(r'<div class="guilty"><span>(\d+)</span>([^<]*)</div>', render(report))
    assert marked == [("8", SOURCE.splitlines()[7])]


def test_a_source_that_changed_or_is_gone_shows_the_recorded_line_alone(report, tmp_path):
    finding = report.masking[0]
    (tmp_path / "source.py").write_text("\n" * 20)
    assert [(line.number, line.text) for line in source_lines(finding)] == [(8, finding.code)]
    (tmp_path / "source.py").unlink()
    assert [(line.number, line.text) for line in source_lines(finding)] == [(8, finding.code)]
    nowhere = MaskingFinding(mechanism="stochastic", symptom="random", module="inner.0")
    assert source_lines(nowhere) == []
    assert place(nowhere) == "inner.0"


def test_a_place_inside_the_working_directory_is_relative(report, tmp_path, monkeypatch):
    assert place(report.masking[0]) == f"{tmp_path / 'source.py'}:8"
    monkeypatch.chdir(tmp_path)
    assert place(report.masking[0]) == "source.py:8"


def table(examples: int = 4) -> ExampleTable:
    return ExampleTable(
        index=list(range(examples)), label=[0, 1, 0, 1], clean=[0, 1, 1, 1], found=[1, 0, 1, 1],
        failure_rate=[1.0, 1.0, 1.0, 0.0], distance=[0.05, 0.1, 0.0, None], standard=[None, 0.12, 0.0, None],
    )  # fmt: skip


def test_every_accuracy_says_of_how_many(report):
    bars = re.findall(r"<b>([^<]*)<small>([^<]*)</small></b>", render(report))
    assert bars == [
        ("96.6 %", "483 of 500"), ("83 %", "as stated"), ("89.8 %", "449 of 500"), ("4.2 %", "21 of 500")
    ]  # fmt: skip
    random = render(report.model_copy(update={"stochastic": True}))
    assert "<small>of 500</small>" in random
    assert "21 of 500" not in random


def test_controls_stand_in_groups_and_what_is_open_comes_first(report):
    symptom, still = (
        report.controls[2].model_copy(update={"role": role, "name": role}) for role in ("symptom", "open")
    )
    words = Page(render(report.model_copy(update={"controls": [*report.controls, symptom, still]}))).words
    words = words.partition("Adversarial examples")[2]
    places = [
        words.find(title)
        for title in ("Open :", "Symptoms of the masking found :", "Passed", "Not applicable")
    ]
    assert -1 not in places
    assert places == sorted(places)


def test_each_example_has_a_row_with_the_names_of_its_classes(report):
    named = report.model_copy(update={"table": table(), "class_names": ["cat", "<dog>"]})
    text = render(named)
    rows = re.findall(r"<tr>((?:<td[^>]*>[^<]*</td>)+)</tr>", text.partition("sortable")[2])
    cells = [re.findall(r'data-key="([^"]*)"', row) for row in rows]
    assert cells[0] == ["0", "cat (0)", "cat (0)", "&lt;dog&gt; (1)", "1.0", "0.05"]
    assert cells[3][-1] == ""
    assert len(cells) == 4


def test_the_one_script_is_ours_and_the_policy_lets_no_other_run(report):
    text = render(report.model_copy(update={"table": table()}))
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    expected = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{expected}'" in html.unescape(text)
    assert "script-src" not in render(report)


def test_the_curve_starts_at_the_clean_accuracy_and_ends_at_what_all_attacks_left():
    assert [share_beyond(table().distance, r) for r in (0.0, 0.07, 0.1)] == [0.75, 0.5, 0.25]
    assert share_beyond(table().standard, 0.1) == 0.75
    drawn = accuracy_against_radius(table(), 0.1, 0.6, masked=True)
    for words in ("repaired attacks", "standard attack", "claim", "4 examples"):
        assert words in drawn


def test_every_dotted_word_is_in_the_glossary(report):
    page = Page(render(report.model_copy(update={"table": table()})))
    places = {attributes.get("id") for _, attributes in page.tags}
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert len(links) > 8
    assert {link.removeprefix("#") for link in links} <= places


def test_date_and_hardware_are_said(report):
    known = report.environment.model_copy(update={"date": "2026-01-02 03:04 UTC", "hardware": "a processor"})
    words = Page(render(report.model_copy(update={"environment": known}))).words
    assert "hardware a processor date 2026-01-02 03:04 UTC" in words


def dumped(page: str, folder: Path, *more: str) -> str:
    """What headless Chromium makes of a page."""
    (folder / "page.html").write_text(page)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    flags += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom", *more]
    command = [str(CHROMIUM), *flags, (folder / "page.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=240).stdout


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_a_click_on_a_heading_sorts_by_numbers_and_what_is_unknown_comes_last(report, tmp_path):
    text = render(report.model_copy(update={"table": table()}))
    click = "for (const n of [5, 5]) document.querySelectorAll('th button')[n].click();"
    allowed = "script-src 'unsafe-inline'"
    text = re.sub(r"script-src [^\"]*", allowed, html.unescape(text)).replace(
        "</body>", f"<script>{click}</script></body>"
    )
    dom = dumped(text, tmp_path)
    rows = re.findall(r'<tr><td data-key="(\d)"', dom)
    assert rows == ["3", "1", "0", "2"]  # descending: unknown is farther than all, then 0.1, 0.05, 0
    assert 'aria-sort="descending"' in dom


@pytest.mark.skipif(
    not (CHROMIUM and AXE), reason="needs chromium, and axe-core's axe.min.js named by UNMASK_AXE"
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1100])
def test_axe_finds_nothing_against_the_page(report, tmp_path, width, scheme):
    """Keyboard, names, contrast and zoom, by axe-core in headless Chromium; and nothing wider than the screen."""
    text = render(report.model_copy(update={"table": table(), "class_names": ["cat", "dog"]}))
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace(
        "<details>", "<details open>"
    )
    told = (
        "const wide = document.documentElement.scrollWidth; axe.run(document).then((r) => {"
        " parent.document.body.innerText = 'FOUND ' + JSON.stringify("
        "[wide, r.violations.map((v) => [v.id, v.nodes[0].html])]) + ' END'; });"
    )
    text = text.replace("</body>", f"<script>{Path(AXE).read_text()}</script><script>{told}</script></body>")
    frame = f'<iframe width={width} height=900 style="border:0" srcdoc="{html.escape(text)}"></iframe>'
    dark = "--blink-settings=preferredColorScheme=0"
    dom = dumped(f"<body>{frame}</body>", tmp_path, *([dark] if scheme == "dark" else []))
    found = json.loads(html.unescape(re.search(r"FOUND (.*?) END", dom, re.DOTALL).group(1)))
    assert found[0] <= width
    assert found[1] == []


def test_the_page_is_offline_and_has_no_scripts(report):
    text = render(report)
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            if name in attributes:
                assert attributes[name].startswith(("data:image/png;base64,", "#")), attributes[name]
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)
    assert "@import" not in text
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_text_from_outside_is_escaped(tmp_path):
    source = tmp_path / "evil.py"
    source.write_text(f"a = 1\nx = torch.round(x)  # {PAYLOAD}\nb = 2  # {PAYLOAD}\n")
    finding = MaskingFinding(
        mechanism="shattered", symptom=PAYLOAD, operation=PAYLOAD, file=str(source), line=2,
        code=f"x = torch.round(x)  # {PAYLOAD}", statistics={PAYLOAD: PAYLOAD}, repair=PAYLOAD,
    )  # fmt: skip
    base = refuted(tmp_path / "source.py")
    attack = base.attacks[0].model_copy(update={"recipe": PAYLOAD})
    control = base.controls[0].model_copy(
        update={"name": PAYLOAD, "value": PAYLOAD, "expected": PAYLOAD, "explanation": PAYLOAD}
    )
    environment = base.environment.model_copy(update={"versions": {PAYLOAD: PAYLOAD}, "device": PAYLOAD})
    report = base.model_copy(
        update={
            "target": PAYLOAD, "data": PAYLOAD, "split": PAYLOAD, "warnings": [PAYLOAD], "masking": [finding],
            "attacks": [attack], "controls": [control], "environment": environment, "budget": PAYLOAD,
        }
    )  # fmt: skip
    text = render(report, PAYLOAD)
    page = Page(text)
    assert "<script" not in text
    assert "<img src=x" not in text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.words.count("alert('x')") >= 15


def test_every_verdict_and_a_bare_report_are_drawn():
    base = not_refuted()
    bare = base.model_copy(
        update={"controls": [], "attacks": [], "images": [], "naive_robust_accuracy": None, "warnings": []}
    )
    for verdict, word in [
        ("refuted", "does not hold"), ("not_refuted", "no proof"), ("certified", "is proved"),
        ("inconclusive", "cut short"),
    ]:  # fmt: skip
        page = Page(render(bare.model_copy(update={"verdict": verdict, "certified_accuracy": 0.89})))
        assert word in page.words
    assert "No claim was given" in Page(render(bare.model_copy(update={"claim": None}))).words


def test_it_is_written_whole(report, tmp_path):
    path = write_html(tmp_path / "new", report)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
