import io
import shlex

from rich.console import Console
from tests.report.sample import not_refuted, refuted

from unmask.audit.records import QueriesRecord
from unmask.cli import options
from unmask.cli.main import parser
from unmask.cli.terminal import show_report
from unmask.report.export import junit, markdown
from unmask.report.html import render
from unmask.report.places import by_place
from unmask.report.words import (
    controls_sentence,
    naive_sentence,
    radius,
    reproduce_commands,
    verdict_sentence,
)


def test_the_command_repeats_the_audit(tmp_path):
    for report in (
        refuted(tmp_path / "s.py"),
        not_refuted().model_copy(update={"passes": 5, "exhaustive": True}),
    ):
        audit, verify = reproduce_commands(report, "my folder")
        arguments = parser().parse_args(shlex.split(audit)[1:])
        given = options.gather(arguments, None)
        assert given.target == report.target
        assert given.epsilon == report.threat.epsilon
        assert given.claim == report.claim
        assert given.examples == report.examples
        assert given.passes == report.passes
        assert given.exhaustive == report.exhaustive
        assert str(arguments.out) == "my folder"
        assert str(parser().parse_args(shlex.split(verify)[1:]).folder) == "my folder"


def test_any_radius_survives():
    for epsilon in (0.1, 8 / 255, 0.031, 1 / 3, 2.0, 0.0, 1e-9, 0.4 / 255):
        assert options.number(radius(epsilon)) == epsilon


def test_sentences():
    report = not_refuted()
    assert "no proof of robustness" in verdict_sentence(report)
    assert naive_sentence(report) == "A standard attack alone reports 91 %."
    same = report.model_copy(update={"naive_robust_accuracy": report.robust_accuracy})
    assert naive_sentence(same) == "A standard attack reports the same, 90.2 %."


def test_another_adversary_is_named_and_given_to_the_command():
    report = not_refuted()
    threat = report.threat.model_copy(update={"goal": "targeted"})
    asked = QueriesRecord(limit=300, most=300, mean=120.5)
    changes = {"threat": threat, "targets": 3, "knowledge": "scores", "queries": asked}
    report = report.model_copy(update=changes)
    assert "stay clear of their target within" in verdict_sentence(report)
    assert "told scores by at most 300 queries" in verdict_sentence(report)
    assert "does not count here" in naive_sentence(report)
    given = options.gather(parser().parse_args(shlex.split(reproduce_commands(report)[0])[1:]), None)
    assert (given.goal, given.targets) == ("targeted", 3)
    assert (given.knowledge, given.queries) == ("scores", 300)


def test_what_a_prediction_averages_is_given_to_the_command():
    report = not_refuted().model_copy(update={"passes": 4, "average": "probabilities"})
    given = options.gather(parser().parse_args(shlex.split(reproduce_commands(report)[0])[1:]), None)
    assert (given.passes, given.average) == (4, "probabilities")


def test_what_controls_measured_is_rounded_wherever_people_read_it(tmp_path):
    report = refuted(tmp_path / "s.py")
    failed = report.controls[0].model_copy(update={"passed": False, "value": 0.024801681513309477})
    report = report.model_copy(update={"controls": [failed]})
    out = io.StringIO()
    show_report(report, [], Console(file=out, width=1000))
    for text in (out.getvalue(), render(report), markdown(report), junit(report)):
        assert "0.0248" in text
        assert "0.02480" not in text


def test_what_failed_controls_mean_is_said_with_their_number(tmp_path):
    (passed, *_), report = refuted(tmp_path / "s.py").controls, refuted(tmp_path / "s.py")
    passed = passed.model_copy(update={"passed": True, "role": None})

    def said(*roles, report=report, decisive=False):
        failed = [passed.model_copy(update={"passed": False, "role": r, "decisive": decisive}) for r in roles]
        return controls_sentence(report.model_copy(update={"controls": [passed, *failed]}))

    assert said() == "1 passed"
    assert said("symptom") == "1 passed; 1 explained by what was found"
    assert said("open") == "1 passed; 1 failed and open, for what was missed could only refute more"
    assert said(None) == "1 passed; 1 failed, and nothing rests on it"
    assert said(None, None).endswith("2 failed, and nothing rests on them")
    kept = not_refuted().model_copy(update={"masking": []})
    assert said("open", report=kept) == "1 passed; 1 failed and open"
    assert said("symptom", report=kept) == "1 passed; 1 answered by what was tried then"
    # Of an audit that did not sort its controls, the decisive ones count against it.
    assert said(None, report=kept, decisive=True) == "1 passed; 1 failed and open"


def test_what_one_operation_does_to_gradients_stands_together(tmp_path):
    report = refuted(tmp_path / "s.py")
    first = report.masking[0].model_copy(update={"repair": "smooth", "inside": None})
    second = first.model_copy(update={"mechanism": "vanishing", "symptom": "on 25% of the examples it dies"})
    other = first.model_copy(
        update={"line": (first.line or 0) + 1, "symptom": "another line", "code": "other()"}
    )
    nowhere = first.model_copy(update={"file": None, "line": None})
    assert by_place([first, other, second]) == [[first, second], [other]]
    assert by_place([nowhere, nowhere]) == [[nowhere], [nowhere]]
    report = report.model_copy(update={"masking": [first, other, second]})
    out = io.StringIO()
    show_report(report, [], Console(file=out, width=1000))
    printed = out.getvalue()
    for text, once in (
        (printed, "repair: smooth"),
        (markdown(report), "- **"),
        (render(report), "Repair: smooth"),
    ):
        assert "on 25% of the examples it dies" in text
        assert "another line" in text
        assert text.count(once) == 2
    assert sum(line.startswith("masked") for line in printed.splitlines()) == 2
    assert render(report).count('<article class="finding">') == 2
