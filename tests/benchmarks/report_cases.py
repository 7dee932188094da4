"""Small reports and folders of results."""

import json


def report_of(values, n_test=400):
    """A report with one share for two rows and several seeds."""
    records = [
        {"seed": seed, "row": row, "metric": "accuracy", "eps": None, "value": value}
        for row, found in values.items()
        for seed, value in enumerate(found)
    ]
    return {"records": records, "data": {"n_test": n_test, "n_classes": 10}}


def keep_one_result(root):
    """Make documents' folder, and results that can be quoted."""
    (root / "docs").mkdir()
    folder = root / "r" / "digits" / "overview"
    folder.mkdir(parents=True)
    report = {"records": report_of({"D_R": [0.5, 0.7]})["records"]}
    (folder / "results.json").write_text(json.dumps(report))
