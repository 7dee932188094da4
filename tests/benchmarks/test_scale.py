"""The benchmark of scale runs, and what it says is sent is what is sent."""

import json

import pytest

import scale


def test_smoke(tmp_path, capsys):
    scale.main(["--smoke", "--n-steps", "1", "--out", str(tmp_path / "new")])
    (row,) = json.loads((tmp_path / "new" / "scale.json").read_text())["rows"]
    assert row["backend"] == "serial" and row["sent_bytes"] == 0
    assert row["seconds"] > 0 and row["cpu_seconds"] > 0 and row["reopen_seconds"] > 0
    assert row["peak_bytes"] > 5e7 and row["worker_peak_bytes"] >= 0
    assert row["data_bytes"] == 64 * 3 * 8 * 8
    assert "n=64" in capsys.readouterr().out
    assert (
        "| D_rand, 8x8 | tiny | 1 | serial | 64 |" in (tmp_path / "new" / "README.md").read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_rows_are_sent_once(backend):
    if backend == "dask":
        pytest.importorskip("distributed")
    row = scale.measure(backend, 4096, (3, 32, 32), n_steps=1)
    networks = scale.N_WORKERS * row["network_bytes"]
    assert row["sent_bytes"] < 1.2 * row["data_bytes"] + 2 * networks
