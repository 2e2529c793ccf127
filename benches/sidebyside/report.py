"""Medians, ratios, tables and the verdict."""

import statistics

from . import REFERENCE, Failure


def summarise(results):
    """Adds medians over the rounds that count, and ratios against the reference in the same round."""
    reference = results.get(REFERENCE, {}).get("rounds", [])[1:]
    for result in results.values():
        counted = result["rounds"][1:]
        result["requests"] = sum(r["requests"] for r in result["rounds"])
        result["errors"] = sum(r["errors"] for r in result["rounds"])
        result["reconnects"] = sum(r["reconnects"] for r in result["rounds"])
        result["first_error"] = next((r["first_error"] for r in result["rounds"] if r["first_error"]), None)
        if any(r["cpu_us"] is None for r in result["rounds"] + reference):
            raise Failure(f"a round had no right answer: {result['first_error']}")
        for key in ("cpu_us", "busy", "p50_us", "p99_us"):
            result[key] = statistics.median(r[key] for r in counted)
        result["per_second"] = statistics.median(r["requests"] / r["seconds"] for r in counted)
        ratios = [ours["cpu_us"] / theirs["cpu_us"] for ours, theirs in zip(counted, reference)]
        if ratios:
            result |= {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}


def table(head, rows):
    """Prints rows in columns; numbers stand to the right, and so do the heads above them."""
    rows = [head, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        cells = [text.rjust(width) for text, width in zip(row, widths)]
        cells[0] = row[0].ljust(widths[0])
        cells[-1] = row[-1]
        print("  ".join(cells).rstrip())


def load_row(name, r, does, has_decisions):
    return [
        name,
        str(r["requests"]),
        f"{r['cpu_us']:.1f}",
        f"{r['ratio']:.2f} ({r['ratio_min']:.2f}-{r['ratio_max']:.2f})" if "ratio" in r else "-",
        f"{r['p50_us']:.0f}",
        f"{r['p99_us']:.0f}",
        f"{r['per_second']:.0f}",
        f"{r['busy']:.0%}",
        f"{r['rss_kib'] / 1024:.1f}",
        str(r["errors"]),
        *([str(r.get("decisions", "-"))] if has_decisions else []),
        does,
    ]


def idle_row(name, r):
    before, after = r["before_kib"] / 1024, r["open_kib"] / 1024
    return [name, f"{before:.1f}", f"{after:.1f}", f"{r['per_connection_kib']:.1f}", str(r["still_open"])]


def print_tables(report):
    print(f"{report['machine']}; one core for each proxy")
    print(f"Closed loop of {report['connections']} keep-alive connections:\n")
    ratio = f"ratio to {REFERENCE} (min-max)"
    head = ["proxy", "requests", "CPU us/req", ratio, "p50 us", "p99 us", "req/s", "core", "RSS MiB", "errors"]
    has_decisions = any("decisions" in r for r in report["load"].values())
    head += ["decisions", "does"] if has_decisions else ["does"]
    table(head, [load_row(name, r, report["does"][name], has_decisions) for name, r in report["load"].items()])
    if report["idle"]:
        print(f"\n{report['idle_connections']} idle connections, each after one request, in a fresh process:\n")
        head = ["proxy", "RSS MiB before", "RSS MiB open", "KiB/connection", "still open"]
        table(head, [idle_row(name, r) for name, r in report["idle"].items()])


def verdict(report, options):
    """What makes the numbers worthless or too high; the exit code is 1 if there is any."""
    for name, r in report["load"].items():
        if r["errors"]:
            yield f"{name}: {r['errors']} requests failed, the first so: {r['first_error']}"
        if r["reconnects"]:
            yield f"{name}: it ended {r['reconnects']} connections, and all should have been kept alive"
        if "logged" in r and r["logged"] < r["requests"]:
            yield f"{name}: {r['requests']} requests, but only {r['logged']} lines in its access log"
        if "decisions" in r and r["decisions"] < r["requests"]:
            yield f"{name}: {r['requests']} requests, but only {r['decisions']} decisions on limits"
    for name, r in report["idle"].items():
        if r["still_open"] != options.idle:
            yield f"{name}: only {r['still_open']} of {options.idle} idle connections stayed open"
    if options.check is not None and (ratio := report["load"]["crossway"]["ratio"]) > options.check:
        yield f"crossway uses {ratio:.2f} times the CPU of {REFERENCE}; {options.check} is allowed"
