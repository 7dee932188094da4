"""The page of `scale.py`: its table, and what that says of the goals."""

import statistics

MIB = 2**20


def sent_per_byte(row, n_workers):
    """Bytes sent beside the network, per byte of X."""
    return max(0, row["sent_bytes"] - n_workers * row["network_bytes"]) / row["data_bytes"]


def report(result):
    """Page with the table and what it says of the goals."""
    machine, n_workers = result["hardware"], result["n_workers"]
    commits = ", ".join(sorted({str(row["commit"]) for row in result["rows"]}))
    lines = [
        "# How the cost of a construction grows",
        "",
        f"`python benchmarks/scale.py`, {result['date']}, commit {commits}, "
        f"{machine['processor']}, {machine['cores']} cores, torch {result['versions']['torch']}; "
        f"{n_workers} workers. Memory is private memory (RssAnon), looked at ten times a second; "
        "shm is what lies in /dev/shm for workers. `reopen` is the same call again: everything is "
        "there, and is checked. Sent bytes are measured for loky and dask, counted at submission "
        "for ray.",
        "Load is the number of processes that wanted a core at the end, ours among them: where it "
        "is above the number of cores, wall times say nothing and only CPU times do.",
        "",
        "| set | network | steps | backend | n | wall, s | CPU, s | load | reopen, s | "
        "own before, MiB | own peak, MiB | largest other process, MiB | shm, MiB | "
        "sent, MiB | sent per byte of X |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        kind = "D_R" if row["constructor"] == "inverter" else "D_rand"
        side = row["shape"][-1]
        cells = [
            f"{kind}, {side}x{side}", row["network"], row["n_steps"], row["backend"],
            f"{row['n']:,}", f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}",
            f"{row['load']:.0f}", f"{row['reopen_seconds']:.1f}",
            *(
                f"{row[name] / MIB:.0f}"
                for name in (
                    "start_bytes", "peak_bytes", "worker_peak_bytes", "shm_bytes", "sent_bytes"
                )
            ),
            f"{sent_per_byte(row, n_workers):.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", *_goals(result["rows"], n_workers), ""])


def _goals(rows, n_workers):
    """Say what the rows tell of the goals, one line each."""

    def found(**wanted):
        return [row for row in rows if all(row[key] == value for key, value in wanted.items())]

    rows = [{**row, "shape": list(row["shape"])} for row in rows]
    lines = []
    for constructor, name in (("relabeler", "D_rand"), ("inverter", "D_R")):
        if sent := [sent_per_byte(row, n_workers) for row in found(constructor=constructor)]:
            lines.append(
                f"- Bytes sent beside the networks, {name}: at most {max(sent):.2f} per byte of X."
            )
    for backend in dict.fromkeys(row["backend"] for row in rows):
        at = {
            row["n"]: row
            for row in found(
                backend=backend, constructor="relabeler", network="tiny", shape=[3, 32, 32]
            )
        }
        *fewer, most = sorted(at) or [None]
        for n in dict.fromkeys([*fewer[:1], *fewer[-1:]]):
            grown = [at[most][name] / at[n][name] for name in ("peak_bytes", "worker_peak_bytes")
                     if at[n][name]]  # fmt: skip
            lines.append(
                f"- Memory, {backend}, n = {most:,} against {n:,}: "
                f"{', '.join(f'{ratio:.2f}' for ratio in grown)} times (own, largest other)."
            )
    for network in ("tiny", "small_cnn"):
        loky = found(n=32_000, network=network, backend="loky")
        for backend in ("dask", "ray"):
            other = found(n=32_000, network=network, backend=backend)
            if loky and other:
                wall, cpu = (
                    _median(other, name) / _median(loky, name)
                    for name in ("seconds", "cpu_seconds")
                )
                lines.append(
                    f"- {backend} against loky, n = 32,000, {network}: {wall:.2f} times in wall "
                    f"time, {cpu:.2f} in CPU time (medians of {len(other)})."
                )
    return sorted(lines)


def _median(rows, name):
    return statistics.median(row[name] for row in rows)
