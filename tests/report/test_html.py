import html.parser
import re

import pytest
from tests.report.sample import SOURCE, not_refuted, refuted

from unmask.audit.records import MaskingFinding, Report
from unmask.report.html import place, render, source_lines, write_html

VOID = {"meta", "img", "br", "link", "input", "hr"}
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
