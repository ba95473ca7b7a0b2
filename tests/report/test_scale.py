"""The benchmark of scoring and reporting, on as little as it runs with."""

import pytest
from benchmarks import scale


def test_the_benchmark_of_scale_runs_what_the_rules_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scale, "PUBLISHED", ["aime24", "gaia"])
    monkeypatch.setattr(scale, "PARTS", {"main": ["aime24"], "deep": ["gaia"]})
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(scale.tempfile, "tempdir", None)
    monkeypatch.setattr(scale, "BAR_S", float("inf"))
    with pytest.raises(SystemExit) as ended:
        scale.main(["--agents", "2", "--seeds", "1", "--samples", "1"])
    said = capsys.readouterr().out
    assert not ended.value.code, said
    assert "266 records" in said
    assert "math-verify's verdicts known" in said
    assert list(tmp_path.iterdir()) == [], "and leaves nothing behind"
