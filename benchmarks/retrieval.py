"""Vector stores beside each other: build, recall against exact search, queries per second, size, memory.

    python benchmarks/retrieval.py [--rows 100000] [--stores exact,graph,zvec,usearch,faiss] [--record]

`exact` and `graph` are Nacre's own stores (one matrix product; Qdrant Edge), the others peers with the same graph
settings (M 16, construction 128, search 128). A store that is not installed is named and left out. Each runs in a
process of its own, so that memory is its own; queries come one at a time, as from people, in rounds taken in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from record import append, machine

M, CONSTRUCTION, SEARCH = 16, 128, 128
K, ROUNDS = 10, 3
PACKAGES = {"exact": "numpy", "graph": "qdrant_edge", "zvec": "zvec", "usearch": "usearch", "faiss": "faiss"}
Search = Callable[[np.ndarray], list[int]]


def vectors(n: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Unit vectors as embeddings lie: clusters of uneven size, each with correlated dimensions of falling variance."""
    rng = np.random.default_rng(seed)
    n_clusters = max(8, n // 200)
    centres = rng.standard_normal((n_clusters, dimensions))
    mixing = rng.standard_normal((dimensions, dimensions)) * (1 / np.sqrt(1 + np.arange(dimensions)))
    shares = rng.dirichlet(np.full(n_clusters, 0.5))
    around = rng.standard_normal((n, dimensions)).astype(np.float32) @ mixing.T.astype(np.float32)
    points = (centres[rng.choice(n_clusters, n, p=shares)] + 0.35 * around).astype(np.float32)
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


def build(store: str, rows: np.ndarray, folder: Path) -> Search:
    """Builds one store over the rows; the search gives the keys of the nearest K."""
    keys = np.arange(len(rows), dtype=np.int64)
    if store == "exact":
        from nacre.tiers.retrieval.stores.flat import Flat

        np.save(folder / "vectors.npy", rows)
        flat = Flat(keys, rows, [{}] * len(rows))
        return lambda query: flat.search(query[None], K)[0].keys.tolist()
    if store == "graph":
        from nacre.tiers.retrieval.stores.qdrant_edge import QdrantEdge

        edge = QdrantEdge(folder, rows.shape[1], ef=SEARCH)
        edge.upsert(keys, rows, [{}] * len(rows))
        edge.optimise()
        return lambda query: edge.search(query[None], K)[0].keys.tolist()
    return {"zvec": _zvec, "usearch": _usearch, "faiss": _faiss}[store](rows, folder)


def _zvec(rows: np.ndarray, folder: Path) -> Search:
    import zvec

    zvec.init(log_level=zvec.LogLevel.ERROR)
    graph = zvec.HnswIndexParam(metric_type=zvec.MetricType.IP, m=M, ef_construction=CONSTRUCTION)
    vector = zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, rows.shape[1], index_param=graph)
    collection = zvec.create_and_open(str(folder / "c"), zvec.CollectionSchema(name="c", fields=[], vectors=vector))
    for begin in range(0, len(rows), 1000):
        some = range(begin, min(begin + 1000, len(rows)))
        collection.upsert([zvec.Doc(id=str(one), vectors={"v": rows[one]}) for one in some])
    collection.optimize()
    collection.flush()
    how = zvec.HnswQueryParam(ef=SEARCH)
    return lambda query: [
        int(one.id) for one in collection.query(zvec.Query(field_name="v", vector=query, param=how), topk=K)
    ]


def _usearch(rows: np.ndarray, folder: Path) -> Search:
    from usearch.index import Index

    index = Index(
        ndim=rows.shape[1],
        metric="ip",
        dtype="f32",
        connectivity=M,
        expansion_add=CONSTRUCTION,
        expansion_search=SEARCH,
    )
    index.add(np.arange(len(rows)), rows)
    index.save(str(folder / "index.usearch"))
    return lambda query: index.search(query, K).keys.tolist()


def _faiss(rows: np.ndarray, folder: Path) -> Search:
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], M, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = CONSTRUCTION, SEARCH
    index.add(rows)
    faiss.write_index(index, str(folder / "index.faiss"))
    return lambda query: index.search(query[None], K)[1][0].tolist()


def worker(store: str, data: Path) -> None:
    """One store: builds, then answers a round of queries for every line on standard input."""
    rows, queries, truth = (np.load(data / f"{name}.npy") for name in ("rows", "queries", "truth"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as home:
        began = time.perf_counter()
        search = build(store, rows, Path(home))
        built = {
            "build_s": round(time.perf_counter() - began, 1),
            "disk_mib": round(sum(one.stat().st_size for one in Path(home).rglob("*") if one.is_file()) / 2**20),
        }
        print(json.dumps(built), flush=True)
        for _ in sys.stdin:
            began = time.perf_counter()
            found = [search(query) for query in queries]
            seconds = time.perf_counter() - began
            hits = sum(len(set(one) & set(best)) for one, best in zip(found, truth.tolist(), strict=True))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            round_of = {
                "recall": hits / truth.size,
                "per_s": len(queries) / seconds,
                "more_memory_mib": round(peak / 1024),
            }
            print(json.dumps(round_of), flush=True)


def exact_nearest(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The keys of the nearest K of every query, by exact search."""
    return np.stack([np.argsort(-(rows @ query), kind="stable")[:K] for query in queries])


def size_of_package(name: str) -> int | None:
    """MiB of an installed package."""
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0])
    return round(sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()) / 2**20)


def measure(stores: list[str], n: int, dimensions: int, n_queries: int) -> list[dict[str, Any]]:
    """A row per store. Builds one after the other, queries in turns."""
    results = []
    with tempfile.TemporaryDirectory() as home:
        data = Path(home)
        both = vectors(n + n_queries, dimensions)
        rows, queries = both[:n], both[n:]
        for name, array in (("rows", rows), ("queries", queries), ("truth", exact_nearest(rows, queries))):
            np.save(data / f"{name}.npy", array)
        del both, rows, queries
        running = {}
        for store in stores:
            command = [sys.executable, __file__, "--worker", store, str(data)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            running[store] = (process, _said(process))
            print(store, running[store][1], file=sys.stderr)
        rounds: dict[str, list[dict[str, Any]]] = {store: [] for store in stores}
        for _ in range(ROUNDS):
            for store, (process, _) in running.items():
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                rounds[store].append(_said(process))
        for store, (process, built) in running.items():
            process.communicate()
            speeds = sorted(one["per_s"] for one in rounds[store])
            last = rounds[store][-1]
            results.append(
                {
                    "store": store, "package": PACKAGES[store], "package_mib": size_of_package(PACKAGES[store]),
                    "rows": n, "dimensions": dimensions, **built, "recall_at_10": round(last["recall"], 4),
                    "queries_per_s": round(speeds[len(speeds) // 2]), "slowest": round(speeds[0]),
                    "fastest": round(speeds[-1]), "more_memory_mib": last["more_memory_mib"],
                }
            )  # fmt: skip
    return results


def _said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args} ended with {process.wait()}")
    said: dict[str, Any] = json.loads(line)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--stores", default=",".join(PACKAGES))
    parser.add_argument("--record", action="store_true", help="append to results/retrieval.csv")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker[0], Path(args.worker[1]))
        return
    wanted = args.stores.split(",")
    stores = [store for store in wanted if find_spec(PACKAGES[store]) is not None]
    for store in sorted(set(wanted) - set(stores)):
        print(f"{store}: left out, {PACKAGES[store]} is not installed", file=sys.stderr)
    taken_on = machine(["numpy", "qdrant-edge-py"])
    rows = measure(stores, args.rows, args.dimensions, args.queries)
    for row in rows:
        print(json.dumps(row))
    if args.record:
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        print(append("retrieval", [{**taken_on, "threads": threads, **row} for row in rows]), file=sys.stderr)


if __name__ == "__main__":
    main()
