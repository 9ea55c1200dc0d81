"""k-means of faiss or scikit-learn on the points of `npm run bench -- kmeans`. It reads points from a file of f32, times fits, and prints one line of JSON per line that it reads.

    python3 bench/peers/kmeans.py faiss|sklearn POINTS.f32 DIM CLUSTERS ITERATIONS THREADS
"""

import json
import sys
import time

import numpy as np

peer, path, dim, clusters, iterations, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
points = np.memmap(path, dtype=np.float32, mode="r").reshape(-1, dim)
points = np.ascontiguousarray(points)

if peer == "faiss":
    import faiss

    faiss.omp_set_num_threads(threads)
    version = faiss.__version__

    def fit():
        fitted = faiss.Kmeans(
            dim, clusters, niter=iterations, seed=1, max_points_per_centroid=10**9, min_points_per_centroid=1
        )
        fitted.train(points)
        return float(fitted.obj[-1]) / len(points)

else:
    import sklearn
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    version = sklearn.__version__

    def fit():
        fitted = KMeans(clusters, init="random", n_init=1, max_iter=iterations, tol=0, algorithm="lloyd", random_state=1)
        return float(fitted.fit(points).inertia_) / len(points)


print(json.dumps({"version": version}), flush=True)
for _ in sys.stdin:
    began, used = time.perf_counter(), time.process_time()
    square = fit()
    print(
        json.dumps(
            {"seconds": time.perf_counter() - began, "cpuSeconds": time.process_time() - used, "meanSquare": square}
        ),
        flush=True,
    )
