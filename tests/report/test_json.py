from tests.report.sample import not_refuted

from unmask.audit.records import Report
from unmask.report.json import write_json


def test_what_is_written_is_read(tmp_path):
    path = write_json(tmp_path / "new", not_refuted())
    report = not_refuted()
    without = [image.model_copy(update={"clean": [], "adversarial": []}) for image in report.images]
    assert Report.model_validate_json(path.read_bytes()) == report.model_copy(update={"images": without})
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]
